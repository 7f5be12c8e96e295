// What forward and backward share: sizes of blocks, who sees whom, 16 numbers at a time.

#pragma once

#include <ATen/native/CPUBlas.h>
#include <c10/util/BFloat16.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace clm_detour {

using at::native::cpublas::brgemm;
using at::native::cpublas::brgemm_release;
using bf16 = c10::BFloat16;
using Floats = __m512;

constexpr int64_t LANES = 16;   // of Floats
constexpr int64_t STEP = 32;    // copies of a document are padded to a multiple of this
constexpr int64_t ROWS = 64;    // of a block of scores
constexpr int64_t PANEL = 256;  // columns of a block of scores
constexpr float LOG2_E = 1.44269504088896340736f;

inline int64_t rounded_down(int64_t n, int64_t step) { return n / step * step; }
inline int64_t rounded_up(int64_t n, int64_t step) { return rounded_down(n + step - 1, step); }

struct Range {  // [from, to)
  int64_t from, to;
  Range minus(int64_t n) const { return {from - n, to - n}; }
};

// Who sees whom in a document of `length` tokens: a query so many keys to its left and to its right.
struct Sight {
  int64_t left, right, length;
  Range keys_of(Range queries) const {
    return {std::max<int64_t>(0, queries.from - left), std::min(length, queries.to + right)};
  }
  Range queries_of(Range keys) const {
    return {std::max<int64_t>(0, keys.from - right), std::min(length, keys.to + left)};
  }
};

// A document in one head: token t's D numbers are at data + t * stride.
struct Tokens {
  const bf16* data;
  int64_t stride;
  const bf16* operator[](int64_t t) const { return data + t * stride; }
  Tokens from(int64_t t) const { return {data + t * stride, stride}; }
};

// The same, to be written.
struct Result {
  bf16* data;
  int64_t stride;
  bf16* operator[](int64_t t) const { return data + t * stride; }
};

// A thread's memory: blocks grow, and stay for its next task.
class Scratch {
 public:
  void restart() { next = 0; }
  template <typename T>
  T* take(int64_t numbers) {
    if (next == blocks.size()) blocks.emplace_back();
    std::vector<char>& block = blocks[next++];
    const size_t bytes = numbers * sizeof(T) + 64;
    if (block.size() < bytes) block = std::vector<char>(bytes);
    return reinterpret_cast<T*>(rounded_up(reinterpret_cast<intptr_t>(block.data()), 64));
  }

 private:
  std::vector<std::vector<char>> blocks;
  size_t next = 0;
};

// 2^x, to a relative 3e-6; bf16 keeps 4e-3 of it.
inline Floats exp2_of(Floats x) {
  const Floats whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Floats rest = _mm512_sub_ps(x, whole);
  Floats power = _mm512_set1_ps(1.33335581e-3f);  // Taylor, ln(2)^5 / 5! and down
  for (const float c : {9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f})
    power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(c));
  return _mm512_scalef_ps(power, whole);
}

inline __m256i rounded_to_bf16(Floats x) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)); }

// Which of the columns i to i + 15 are in the range.
inline __mmask16 within(Range range, int64_t i) {
  const auto below = [i](int64_t n) { return (1u << std::clamp<int64_t>(n - i, 0, LANES)) - 1; };
  return static_cast<__mmask16>(below(range.to) & ~below(range.from));
}

// n numbers times `factor`, in bf16.
inline void write(const float* from, float factor, int64_t n, bf16* to) {
  for (int64_t i = 0; i < n; i += LANES) {
    const __mmask16 there = within({0, n}, i);
    const Floats x = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, from + i), _mm512_set1_ps(factor));
    _mm256_mask_storeu_epi16(to + i, there, rounded_to_bf16(x));
  }
}

}  // namespace clm_detour
