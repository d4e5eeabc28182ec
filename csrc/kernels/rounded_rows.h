// Inputs of products with rounded weights, rounded to int8: a scale for each row and group of inputs,
// or for a few neighbouring groups. No scale depends on another row.
#pragma once

#include "simd.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int64_t kWorthClaimingToRound = 8 * 1024;  // inputs
constexpr int64_t kRowsRoundedTogether = 8;
constexpr int64_t kRowsWorthRoundingTogether = 64;
constexpr float kCountsAsZero = 1e-30f;

// The inputs of a call: [groups][rows][cells of a group], for each group and row what its sums begin
// with, and for each row and so many groups as share one, the scale. The rows of a group lie side by
// side, because a tile reads them together: a whole row apart they would all fall into the same few
// sets of the cache.
struct RoundedRows {
  ByteCell* cells;
  float* scales;
  int32_t* starts;
  int64_t rows, groups, cells_per_group;

  int64_t place(int64_t row, int64_t group) const { return group * rows + row; }
};

// Of the largest magnitude. As whole numbers, magnitudes are in the same order.
NOVACRON_INLINE int32_t bits_of_largest(const float* from, int64_t count) {
  Ints most = {};
  for_vectors(count, [&](int64_t index, int64_t lanes) {
    const Ints size = (Ints)load_up_to(from + index, lanes) & 0x7fffffff;
    most = size > most ? size : most;
  });
  return max_of_lanes(most);
}
// Two to a word: the upper ones keep what lies below them, which decides nothing.
NOVACRON_INLINE int32_t bits_of_largest(const BFloat16* from, int64_t count) {
  Ints upper = {}, lower = {};
  int64_t index = 0;
  for (; index + 2 * kLanes <= count; index += 2 * kLanes) {
    const Words pair = load_words(from + index);
    const Ints high = (Ints)(pair & 0x7fffffffu), low = (Ints)(pair << 16 & 0x7fffffffu);
    upper = high > upper ? high : upper;
    lower = low > lower ? low : lower;
  }
  upper &= ~0xffff;
  for (; index < count; index += kLanes) {
    const Ints rest = (Ints)load_up_to(from + index, smaller(kLanes, count - index)) & 0x7fffffff;
    lower = rest > lower ? rest : lower;
  }
  return max_of_lanes(upper > lower ? upper : lower);
}

// What turns the largest value of some inputs into 127 or -127, and its inverse. A value that is not
// finite makes the scale so, and with it every product.
struct Rounding {
  float inverse, scale;
};
template <class Element>
NOVACRON_INLINE Rounding rounding_of(const Element* from, int64_t count) {
  const int32_t bits = bits_of_largest(from, count);
  float largest;
  memcpy(&largest, &bits, sizeof largest);
  if (largest < kCountsAsZero) return {0.0f, 0.0f};
  return {127.0f / largest, largest * (1.0f / 127.0f)};
}

// Rounds a group; gives the sum of its values.
template <class Element>
NOVACRON_INLINE int32_t round_group(const Element* from, int64_t count, int64_t group_size,
                                    float inverse, int8_t* to) {
  Ints total = {};
  for_vectors(count, [&](int64_t index, int64_t lanes) {
    const Ints rounded = nearest(load_up_to(from + index, lanes) * inverse);
    total += rounded;
    store_bytes(to + index, rounded, lanes);
  });
  if (count < group_size) memset(to + count, 0, group_size - count);
  return sum_of_lanes(total);
}

// Group after group, so that neighbouring rows write to neighbouring cells.
template <class Weights, class Element>
void round_rows(const LinearCall& call, int64_t first_row, int64_t last_row,
                const RoundedRows& x) {
  const Element* inputs = static_cast<const Element*>(call.x);
  const int64_t sharing = call.input_group / call.group;
  float inverses[kRowsRoundedTogether];
  for (int64_t group = 0; group < x.groups; ++group) {
    const int64_t first = group * call.group, left = call.inputs - first;
    for (int64_t row = first_row; row < last_row; ++row) {
      const Element* from = inputs + row * call.x_stride + first;
      float& inverse = inverses[row - first_row];
      if (group % sharing == 0) {
        const Rounding rounding = rounding_of(from, smaller(call.input_group, left));
        x.scales[x.place(row, group / sharing)] = rounding.scale;
        inverse = rounding.inverse;
      }
      alignas(64) int8_t room[kLargestGroup];
      const int64_t place = x.place(row, group);
      ByteCell* cells = x.cells + place * x.cells_per_group;
      int8_t* bytes = bytes_before(cells, room);
      x.starts[place] = -Weights::kOffset *
                        round_group(from, smaller(call.group, left), call.group, inverse, bytes);
      make_byte_cells(bytes, x.cells_per_group, cells);
    }
  }
}

template <class Weights, class Element>
void round_all_rows(ThreadPool& pool, const LinearCall& call, const RoundedRows& x) {
  const int64_t few_rows = divide_up(kWorthClaimingToRound, call.inputs);
  const int64_t grain = call.rows < kRowsWorthRoundingTogether ? few_rows : kRowsRoundedTogether;
  parallel(pool, call.rows, grain, [&](int64_t row, int64_t last) {
    for (; row < last; row += kRowsRoundedTogether) {
      round_rows<Weights, Element>(call, row, smaller(row + kRowsRoundedTogether, last), x);
    }
  });
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
