// Replaces the SVG of each `.chart` by the interactive chart when it comes into view.
// Buttons with data-arm="NAME" and aria-pressed show and hide an arm in all charts.

const views = new Map();
const buttons = [...document.querySelectorAll("button[data-arm]")];

function hiddenArms() {
  const off = buttons.filter((button) => button.getAttribute("aria-pressed") === "false");
  return new Set(off.map((button) => button.dataset.arm));
}

function showArms(view, arms) {
  const off = hiddenArms();
  view.signal("arms", arms.filter((arm) => !off.has(arm))).runAsync();
}

async function embed(chart) {
  const spec = JSON.parse(chart.querySelector("script").textContent);
  const options = { renderer: "svg", actions: false, ast: true };
  const { view } = await vegaEmbed(chart.querySelector(".live"), spec, options);
  chart.classList.add("embedded");
  const arms = (spec.params ?? []).find((param) => param.name === "arms");
  if (arms) {
    views.set(view, arms.value);
    if (hiddenArms().size) showArms(view, arms.value);
  }
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      embed(target).catch((error) => console.error(`chart ${target.dataset.name}:`, error));
    }
  },
  { rootMargin: "400px" },
);
document.querySelectorAll(".chart").forEach((chart) => observer.observe(chart));

for (const button of buttons) {
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "false");
    views.forEach((arms, view) => showArms(view, arms));
  });
}
