// out = softmax(q k^T scale) v, a block of ROWS queries and PANEL keys at a time, with a running maximum and sum.

#pragma once

#include <cmath>
#include <limits>

#include "copies.h"

namespace clm_detour {

// The softmax of a block of queries as far as it has come.
struct Running {
  float top[ROWS], total[ROWS];  // of exponents to base 2
  Running() {
    std::fill_n(top, ROWS, -std::numeric_limits<float>::infinity());
    std::fill_n(total, ROWS, 0.0f);
  }

  // Row r's scores of N keys, of which it sees a range, to probabilities; returns the factor of what was added up before.
  float add(int64_t r, const float* score, Range seen, int64_t N, float scale, bf16* probability) {
    Floats high = _mm512_set1_ps(top[r]);
    const Floats factor = _mm512_set1_ps(scale);
    for (int64_t i = 0; i < N; i += LANES)
      high = _mm512_mask_max_ps(high, within(seen, i), high, _mm512_mul_ps(_mm512_load_ps(score + i), factor));
    const float before = top[r];
    top[r] = _mm512_reduce_max_ps(high);
    const Floats less = _mm512_set1_ps(top[r]);
    Floats sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < N; i += LANES) {
      const Floats power = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(score + i), factor, less));
      const Floats p = _mm512_maskz_mov_ps(within(seen, i), power);
      sum = _mm512_add_ps(sum, p);
      _mm256_store_si256(reinterpret_cast<__m256i*>(probability + i), rounded_to_bf16(p));
    }
    const float keep = top[r] == before ? 1.0f : std::exp2(before - top[r]);
    total[r] = total[r] * keep + _mm512_reduce_add_ps(sum);
    return keep;
  }
};

// Some queries of a document in one head. log_sum: of exponents to base 2, (length,).
inline void forward(const Tokens& q, const Tokens& k, const Tokens& v, Sight sight, Range queries, int64_t D, float scale,
                    const Result& out, float* log_sum) {
  thread_local Scratch scratch;
  const Range seen = {rounded_down(sight.keys_of(queries).from, STEP), sight.keys_of(queries).to};
  const int64_t keys = seen.to - seen.from, padded = rounded_up(keys, STEP), panels = rounded_up(keys, PANEL);
  scratch.restart();
  bf16* k_transposed = scratch.take<bf16>(panels * D);
  bf16* v_paired = scratch.take<bf16>(panels * D);
  bf16* q_rows = scratch.take<bf16>(ROWS * D);
  float* sum = scratch.take<float>(ROWS * D);
  float* score = scratch.take<float>(ROWS * PANEL);
  bf16* probability = scratch.take<bf16>(ROWS * PANEL);
  copy_transposed_paired(k.from(seen.from), keys, padded, D, k_transposed);
  copy_paired(v.from(seen.from), keys, padded, D, v_paired);

  for (int64_t first = queries.from; first < queries.to; first += ROWS) {
    const int64_t rows = std::min(ROWS, queries.to - first), M = rounded_up(rows, STEP);
    const Range all = sight.keys_of({first, first + rows}).minus(seen.from);
    copy_rows(q.from(first), rows, M, D, q_rows);
    Running softmax;
    bool begun = false;
    for (int64_t n = rounded_down(all.from, STEP), end; n < all.to; n = end) {
      end = std::min(rounded_down(n, PANEL) + PANEL, rounded_up(all.to, STEP));
      const int64_t N = end - n;
      brgemm(M, N, D, D, PANEL, PANEL, false, q_rows, k_transposed + rounded_down(n, PANEL) * D + n % PANEL * 2, score);
      for (int64_t r = 0; r < M; ++r) {
        const Range mine = r < rows ? sight.keys_of({first + r, first + r + 1}).minus(seen.from + n) : Range{0, 0};
        const float keep = softmax.add(r, score + r * PANEL, mine, N, scale * LOG2_E, probability + r * PANEL);
        if (begun && keep != 1.0f)
          for (int64_t d = 0; d < D; ++d) sum[r * D + d] *= keep;
      }
      brgemm(M, D, N, PANEL, D, D, begun, probability, v_paired + n * D, sum);
      begun = true;
    }
    for (int64_t r = 0; r < rows; ++r) {
      write(sum + r * D, 1.0f / softmax.total[r], D, out[first + r]);
      log_sum[first + r] = softmax.top[r] + std::log2(softmax.total[r]);
    }
  }
  brgemm_release();
}

}  // namespace clm_detour
