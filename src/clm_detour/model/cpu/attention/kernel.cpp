// FlashAttention over documents for CPUs that multiply bf16.
//
// Every product is a micro-kernel of oneDNN, at::native::cpublas::brgemm, which runs at a core's peak on blocks that stay in its
// cache. oneDNN compiles one for each shape that it meets, so blocks have few shapes: tokens are padded to a multiple of STEP in
// copies of a document. What a token sees is one range of its document; so no mask is ever made.
//
// Threads take documents and heads in turns. Each writes what is its own, so the result does not depend on their number.

#include "backward.h"
#include "forward.h"

using namespace clm_detour;

namespace {

constexpr int64_t QUERIES = 1024;  // that a thread takes at a time, forward

struct Task {
  int64_t start, length, head;
  Range queries;
};

}  // namespace

// T tokens, H heads of D numbers; mirrored in __init__.py.
struct Batch {
  const bf16 *q, *k, *v;  // (T, H, D)
  int64_t token_strides[3], head_strides[3];
  const int32_t* ends;  // (documents + 1,), from 0 on
  int64_t documents, T, H, D;
  int64_t left, right;  // how far a query sees
  float scale;

  // Of each document and head, at most so many queries; long documents first, so that threads end together.
  std::vector<Task> tasks(int64_t queries) const {
    std::vector<Task> all;
    for (int64_t n = 0; n < documents; ++n)
      for (int64_t head = 0; head < H; ++head)
        for (int64_t from = 0, length = ends[n + 1] - ends[n]; from < length; from += queries)
          all.push_back({ends[n], length, head, {from, std::min(length, from + queries)}});
    std::stable_sort(all.begin(), all.end(), [](const Task& a, const Task& b) { return a.length > b.length; });
    return all;
  }
  Tokens input(const Task& task, int which) const {
    const bf16* const inputs[] = {q, k, v};
    return {inputs[which] + task.start * token_strides[which] + task.head * head_strides[which], token_strides[which]};
  }
  int64_t place(const Task& task) const { return (task.start * H + task.head) * D; }  // in a dense (T, H, D)
  Result output(const Task& task, bf16* dense) const { return {dense + place(task), H * D}; }
  Tokens dense(const Task& task, const bf16* dense) const { return {dense + place(task), H * D}; }
  Sight sight(const Task& task) const { return {left, right, task.length}; }
};

extern "C" {

// Whether oneDNN does such products: not if it is switched off or held to older instructions. A thread could not say so.
bool works() {
  const std::vector<bf16> left(STEP * STEP), right(STEP * STEP);
  std::vector<float> product(STEP * STEP);
  try {
    brgemm(STEP, STEP, STEP, STEP, STEP, STEP, false, left.data(), right.data(), product.data());
    brgemm_release();
  } catch (const std::exception&) {
    return false;
  }
  return true;
}

// out: dense (T, H, D); log_sum: dense (H, T), for the backward.
void attention_forward(const Batch* batch, bf16* out, float* log_sum) {
  const Batch& b = *batch;
  const std::vector<Task> tasks = b.tasks(QUERIES);
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Task& task = tasks[i];
    forward(b.input(task, 0), b.input(task, 1), b.input(task, 2), b.sight(task), task.queries, b.D, b.scale,
            b.output(task, out), log_sum + task.head * b.T + task.start);
  }
}

// out, d_out, dq, dk, dv: dense (T, H, D).
void attention_backward(const Batch* batch, const bf16* out, const float* log_sum, const bf16* d_out, bf16* dq, bf16* dk,
                        bf16* dv) {
  const Batch& b = *batch;
  const std::vector<Task> tasks = b.tasks(std::max<int64_t>(1, b.T));
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < tasks.size(); ++i) {
    const Task& task = tasks[i];
    backward(b.input(task, 0), b.input(task, 1), b.input(task, 2), b.dense(task, out), b.dense(task, d_out), b.sight(task), b.D,
             b.scale, log_sum + task.head * b.T + task.start,
             {b.output(task, dq), b.output(task, dk), b.output(task, dv)});
  }
}
}
