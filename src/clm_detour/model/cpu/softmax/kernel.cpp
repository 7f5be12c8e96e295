// Softmax over the vocabulary as cross-entropy needs it.
//
// A row of logits comes from memory once: it stays in the core's cache for the passes that follow. Loops are plain, for the
// compiler to turn into vector instructions of whatever CPU. A row (or, in a sum of rows, a column) is one thread's work, so the
// result does not depend on their number.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace {

constexpr float LOG2_E = 1.44269504088896340736f;
constexpr int64_t COLUMNS = 2048;  // at a time, in sums: they stay in the nearest cache

template <typename To, typename From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

struct BF16 {
  uint16_t upper;
  operator float() const { return bits<float>(static_cast<uint32_t>(upper) << 16); }
  BF16& operator=(float x) {  // the nearest, ties to even
    const uint32_t whole = bits<uint32_t>(x);
    upper = x != x ? NOT_A_NUMBER : static_cast<uint16_t>((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
    return *this;
  }
  static constexpr uint16_t NOT_A_NUMBER = 0x7fc0;
};

// 2^x for x up to about 0, to a relative 3e-7; 0 where that is no normal number.
inline float exp2_of(float x) {
  constexpr float SHIFT = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const float shifted = x + SHIFT;
  const float rest = x - (shifted - SHIFT);
  float power = 1.54035304e-4f;  // Taylor, ln(2)^6 / 6! and down
  power = power * rest + 1.33335581e-3f;
  power = power * rest + 9.61812911e-3f;
  power = power * rest + 5.55041087e-2f;
  power = power * rest + 2.40226507e-1f;
  power = power * rest + 6.93147181e-1f;
  power = power * rest + 1.0f;
  const float scaled = power * bits<float>((bits<uint32_t>(shifted) + 127) << 23);
  return x < -126.0f ? 0.0f : scaled;
}

// In place; returns the cross-entropy.
template <bool BIASED, typename T>
float gradient_of_row(T* logits, const float* bias, int64_t label, int64_t V) {
  const auto at = [&](int64_t i) { return BIASED ? logits[i] + bias[i] : static_cast<float>(logits[i]); };
  float top = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < V; ++i) top = std::max(top, at(i));
  float sum = 0;
  for (int64_t from = 0; from < V; from += COLUMNS) {  // a sum of sums loses less
    float part = 0;
#pragma omp simd reduction(+ : part)
    for (int64_t i = from; i < std::min(V, from + COLUMNS); ++i) part += exp2_of((at(i) - top) * LOG2_E);
    sum += part;
  }
  const float distance = at(label) - top, log2_sum = std::log2(sum);
#pragma omp simd
  for (int64_t i = 0; i < V; ++i) logits[i] = exp2_of((at(i) - top) * LOG2_E - log2_sum);
  logits[label] = exp2_of(distance * LOG2_E - log2_sum) - 1.0f;
  return std::log(sum) - distance;
}

template <typename T>
double gradient(T* logits, const float* bias, const int64_t* labels, int64_t C, int64_t V) {
  const auto of_row = bias ? gradient_of_row<true, T> : gradient_of_row<false, T>;
  std::vector<float> losses(C);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < C; ++i) losses[i] = of_row(logits + i * V, bias, labels[i], V);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

template <typename T>
void add_rows(const T* rows, int64_t C, int64_t V, float* sum) {
#pragma omp parallel for schedule(static)
  for (int64_t from = 0; from < V; from += COLUMNS)
    for (int64_t i = 0, to = std::min(V, from + COLUMNS); i < C; ++i)
#pragma omp simd
      for (int64_t j = from; j < to; ++j) sum[j] += rows[i * V + j];
}

}  // namespace

extern "C" {

// logits: (C, V); bias: (V,) or null; labels: (C,). Returns the sum of the cross-entropies.
double gradient_bf16(BF16* logits, const float* bias, const int64_t* labels, int64_t C, int64_t V) {
  return gradient(logits, bias, labels, C, V);
}
double gradient_fp32(float* logits, const float* bias, const int64_t* labels, int64_t C, int64_t V) {
  return gradient(logits, bias, labels, C, V);
}

// rows: (C, V); sum: (V,).
void add_rows_bf16(const BF16* rows, int64_t C, int64_t V, float* sum) { add_rows(rows, C, V, sum); }
void add_rows_fp32(const float* rows, int64_t C, int64_t V, float* sum) { add_rows(rows, C, V, sum); }
}
