// Gradients of q, k and v, a block of ROWS keys and PANEL queries at a time; with P the probabilities, which are computed again,
// and dO the gradient of the output (FlashAttention-2, algorithm 2):
//     dV = P^T dO,    dS = P * (dO V^T - rowsum(dO * O)),    dK = dS^T Q scale,    dQ = dS K scale
// Blocks are computed transposed, keys by queries, so that P^T and dS^T come out as the left-hand matrices that the second and
// third product want; dQ is added up transposed, for which dS^T is the right-hand one.

#pragma once

#include "copies.h"

namespace clm_detour {

struct Gradients {
  Result q, k, v;
};

// (length,): of each token the sum of a * b over D.
inline void row_sums(const Tokens& a, const Tokens& b, int64_t length, int64_t D, float* sums) {
  for (int64_t t = 0; t < length; ++t) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; ++d) sum += static_cast<float>(a[t][d]) * static_cast<float>(b[t][d]);
    sums[t] = sum;
  }
}

// A block of keys by queries, PANEL numbers a row.
struct Block {
  float *score, *d_probability;
  bf16 *probability, *d_score;
  uint32_t* d_score_paired;
};

// Keys r and r + 1 of N queries: probabilities and gradients of scores from scores and gradients of probabilities.
inline void differentiate(const Block& block, int64_t r, int64_t N, const Range (&seen)[2], Range queries, float scale,
                          const float* log_sum, const float* row_sum) {
  for (int64_t i = 0; i < N; i += LANES) {
    const __mmask16 there = within(queries, i);
    const Floats less = _mm512_maskz_loadu_ps(there, log_sum + i), mean = _mm512_maskz_loadu_ps(there, row_sum + i);
    __m256i both[2];
    for (int64_t one : {0, 1}) {
      const int64_t at = (r + one) * PANEL + i;
      const Floats power = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(block.score + at), _mm512_set1_ps(scale), less));
      const Floats p = _mm512_maskz_mov_ps(within(seen[one], i), power);
      const Floats d_score = _mm512_mul_ps(p, _mm512_sub_ps(_mm512_load_ps(block.d_probability + at), mean));
      both[one] = rounded_to_bf16(d_score);
      _mm256_store_si256(reinterpret_cast<__m256i*>(block.probability + at), rounded_to_bf16(p));
      _mm256_store_si256(reinterpret_cast<__m256i*>(block.d_score + at), both[one]);
    }
    const __m512i paired =
        _mm512_or_si512(_mm512_cvtepu16_epi32(both[0]), _mm512_slli_epi32(_mm512_cvtepu16_epi32(both[1]), 16));
    _mm512_store_si512(block.d_score_paired + r / 2 * PANEL + i, paired);
  }
}

// A document in one head. log_sum: as `forward` gave it.
inline void backward(const Tokens& q, const Tokens& k, const Tokens& v, const Tokens& out, const Tokens& d_out, Sight sight,
                     int64_t D, float scale, const float* log_sum, const Gradients& gradients) {
  thread_local Scratch scratch;
  const int64_t length = sight.length, padded = rounded_up(length, STEP), panels = rounded_up(length, PANEL);
  scratch.restart();
  bf16* copies[7];
  for (bf16*& copy : copies) copy = scratch.take<bf16>(panels * D);
  const auto [q_paired, q_transposed, d_out_paired, d_out_transposed, k_rows, k_transposed, v_rows] = copies;
  float* dq_transposed = scratch.take<float>(panels * D);
  float* row_sum = scratch.take<float>(length);
  float* dk = scratch.take<float>(ROWS * D);
  float* dv = scratch.take<float>(ROWS * D);
  const Block block{scratch.take<float>(ROWS * PANEL), scratch.take<float>(ROWS * PANEL), scratch.take<bf16>(ROWS * PANEL),
                    scratch.take<bf16>(ROWS * PANEL), scratch.take<uint32_t>(ROWS / 2 * PANEL)};
  copy_paired(q, length, padded, D, q_paired);
  copy_transposed_paired(q, length, padded, D, q_transposed);
  copy_paired(d_out, length, padded, D, d_out_paired);
  copy_transposed_paired(d_out, length, padded, D, d_out_transposed);
  copy_rows(k, length, padded, D, k_rows);
  copy_transposed(k, length, padded, D, k_transposed);
  copy_rows(v, length, padded, D, v_rows);
  row_sums(out, d_out, length, D, row_sum);
  std::fill_n(dq_transposed, panels * D, 0.0f);

  for (int64_t first = 0; first < length; first += ROWS) {
    const int64_t rows = std::min(ROWS, length - first), M = rounded_up(rows, STEP);
    const Range all = sight.queries_of({first, first + rows});
    bool begun = false;
    for (int64_t n = rounded_down(all.from, STEP), end; n < all.to; n = end) {
      end = std::min(rounded_down(n, PANEL) + PANEL, rounded_up(all.to, STEP));
      const int64_t N = end - n, panel = rounded_down(n, PANEL) * D, column = n % PANEL;
      brgemm(M, N, D, D, PANEL, PANEL, false, k_rows + first * D, q_transposed + panel + column * 2, block.score);
      brgemm(M, N, D, D, PANEL, PANEL, false, v_rows + first * D, d_out_transposed + panel + column * 2, block.d_probability);
      const auto seen = [&](int64_t r) {
        return r < rows ? sight.queries_of({first + r, first + r + 1}).minus(n) : Range{0, 0};
      };
      for (int64_t r = 0; r < M; r += 2)
        differentiate(block, r, N, {seen(r), seen(r + 1)}, Range{0, length - n}, scale * LOG2_E, log_sum + n, row_sum + n);
      brgemm(M, D, N, PANEL, D, D, begun, block.probability, d_out_paired + n * D, dv);
      brgemm(M, D, N, PANEL, D, D, begun, block.d_score, q_paired + n * D, dk);
      brgemm(D, N, M, ROWS, PANEL, PANEL, true, k_transposed + first * D, reinterpret_cast<bf16*>(block.d_score_paired),
             dq_transposed + panel + column);
      begun = true;
    }
    for (int64_t r = 0; r < rows; ++r) {
      write(dk + r * D, scale, D, gradients.k[first + r]);
      write(dv + r * D, 1.0f, D, gradients.v[first + r]);
    }
  }
  float* dq = dk;
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t d = 0; d < D; ++d) dq[d] = dq_transposed[rounded_down(t, PANEL) * D + d * PANEL + t % PANEL];
    write(dq, scale, D, gradients.q[t]);
  }
  brgemm_release();
}

}  // namespace clm_detour
