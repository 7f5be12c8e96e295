// A document's queries, keys, values or gradients laid out as the products want them, zeros behind its last token.
//
// The right-hand matrix of a product lies in pairs of rows, [rows / 2][columns][2], here called paired. D is even.

#pragma once

#include "common.h"

namespace clm_detour {

// (length, D) -> (padded, D)
inline void copy_rows(const Tokens& x, int64_t length, int64_t padded, int64_t D, bf16* to) {
  for (int64_t t = 0; t < length; ++t) std::copy_n(x[t], D, to + t * D);
  std::fill_n(to + length * D, (padded - length) * D, bf16(0.0f));
}

// (length, D) -> (padded, D), paired
inline void copy_paired(const Tokens& x, int64_t length, int64_t padded, int64_t D, bf16* out) {
  const std::vector<bf16> zeros(D, bf16(0.0f));
  for (int64_t t = 0; t < padded; t += 2) {
    const auto* even = reinterpret_cast<const uint16_t*>(t < length ? x[t] : zeros.data());
    const auto* odd = reinterpret_cast<const uint16_t*>(t + 1 < length ? x[t + 1] : zeros.data());
    auto* to = reinterpret_cast<uint32_t*>(out + t * D);
    for (int64_t d = 0; d < D; ++d) to[d] = even[d] | static_cast<uint32_t>(odd[d]) << 16;
  }
}

// (length, D) -> panels of (D, width): the transpose. An `Item` is one number, or two of them for a paired copy.
template <typename Item>
void transpose(const Tokens& x, int64_t length, int64_t padded, int64_t D, int64_t width, bf16* out) {
  const int64_t items = D * static_cast<int64_t>(sizeof(bf16)) / static_cast<int64_t>(sizeof(Item));
  const std::vector<Item> zeros(items, Item(0));
  for (int64_t t = 0; t < padded; t += LANES) {  // so many tokens at a time stay in the cache
    const Item* rows[LANES];
    for (int64_t i = 0; i < LANES; ++i) rows[i] = t + i < length ? reinterpret_cast<const Item*>(x[t + i]) : zeros.data();
    Item* to = reinterpret_cast<Item*>(out + rounded_down(t, width) * D) + t % width;
    for (int64_t d = 0; d < items; ++d)
      for (int64_t i = 0; i < LANES; ++i) to[d * width + i] = rows[i][d];
  }
}

// (length, D) -> panels of (D, PANEL), paired
inline void copy_transposed_paired(const Tokens& x, int64_t length, int64_t padded, int64_t D, bf16* to) {
  transpose<uint32_t>(x, length, padded, D, PANEL, to);
}

// (length, D) -> blocks of (D, ROWS)
inline void copy_transposed(const Tokens& x, int64_t length, int64_t padded, int64_t D, bf16* to) {
  transpose<uint16_t>(x, length, padded, D, ROWS, to);
}

}  // namespace clm_detour
