// Products with weights in e4m3: widened to the inputs' own type, and multiplied as such.
//
// Some inputs of a panel are widened at a time, into the nearest cache, where all rows of a block
// read them. A group is 128 inputs that share a scale for each output: its products are summed as
// dense ones are, and the sum, scaled, is added to the chain of the output's segment. So rows, tasks
// and threads change nothing here either.
#pragma once

#include "linear.h"
#include "quantized_linear.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int64_t kFloat8Group = 128;
constexpr int64_t kFloat8ScaleBytes = kPanel * sizeof(float);
constexpr int64_t kFloat8GroupBytes = kFloat8ScaleBytes + kFloat8Group * kPanel;
constexpr int64_t kWidenedInputs = 32;  // at a time
constexpr int64_t kFloat8AheadBytes = 4 * 1024;

// Of e4m3 without its sign, in the lowest bits. Numbers below 2^-6 have no leading one: they get it,
// and lose what it stands for.
NOVACRON_INLINE Floats widen_magnitude(Words magnitude) {
  const Words is_small = (Words)(magnitude < 8u);
  const Words bits = (magnitude << 20) + (120u << 23) + (is_small & (1u << 23));
  return (Floats)bits - (Floats)(is_small & (Words)broadcast(0x1p-6f));
}
NOVACRON_INLINE Words widen_code(Words code) {
  return (Words)widen_magnitude(code & 0x7fu) | (code & 0x80u) << 24;
}

// Whether any of the four codes of any lane has no leading one. That is rare, where it can be told.
NOVACRON_INLINE bool has_small(Words codes) {
#if defined(__AVX512BW__)
  return _mm512_testn_epi8_mask((__m512i)codes, _mm512_set1_epi8(0x78)) != 0;
#else
  (void)codes;
  return true;
#endif
}
// Of the byte on top of a word, or of a half, with a leading one.
NOVACRON_INLINE Words widen_large(Words top) {
  return (Words)(((Ints)top >> 4) & 0x87f00000) + (120u << 23);
}
NOVACRON_INLINE Words widen_large_halves(Words top) {
#if defined(__AVX512BW__)
  const __m512i bits = _mm512_srai_epi16((__m512i)top, 4);
  return (Words)_mm512_add_epi16((__m512i)((Words)bits & 0x87f087f0u), _mm512_set1_epi16(0x3c00));
#else
  return top;
#endif
}

// Two codes, each in the lower byte of a half.
NOVACRON_INLINE Words widen_pair_to_bfloat16(Words pair) {
#if defined(__AVX512BW__)
  alignas(64) static constexpr uint16_t kSmall[32] = {0,      0x3b00, 0x3b80, 0x3bc0,
                                                      0x3c00, 0x3c20, 0x3c40, 0x3c60};
  const __m512i magnitude = (__m512i)(pair & 0x007f007fu);
  const __m512i bits = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), _mm512_set1_epi16(0x3c00));
  const __mmask32 is_small = _mm512_testn_epi16_mask(magnitude, _mm512_set1_epi16(0x78));
  const __m512i widened = _mm512_mask_permutexvar_epi16(bits, is_small, magnitude,
                                                        _mm512_load_si512(kSmall));
  return (Words)widened | (pair & 0x00800080u) << 8;
#else
  return widen_code(pair & 0xffu) >> 16 | (widen_code(pair >> 16) & 0xffff0000u);
#endif
}

// Makes cells of a word of four codes, which are those of inputs 0, 2, 1 and 3.
struct Float8ToFloats {
  using Cells = FloatCells;
  static constexpr int kCells = 4;
  static NOVACRON_INLINE void widen(Words codes, Words* cells) {
    constexpr int kShift[] = {0, 16, 8, 24};
    if (!has_small(codes)) {
NOVACRON_UNROLL
      for (int i = 0; i < kCells; ++i) cells[i] = widen_large(codes << (24 - kShift[i]));
    } else {
NOVACRON_UNROLL
      for (int i = 0; i < kCells; ++i) cells[i] = widen_code((codes >> kShift[i]) & 0xffu);
    }
  }
};
struct Float8ToBFloat16 {
  using Cells = BFloat16Cells;
  static constexpr int kCells = 2;
  static NOVACRON_INLINE void widen(Words codes, Words* cells) {
    if (!has_small(codes)) {
      cells[0] = widen_large_halves((codes & 0x00ff00ffu) << 8);
      cells[1] = widen_large_halves(codes);
    } else {
      cells[0] = widen_pair_to_bfloat16(codes & 0x00ff00ffu);
      cells[1] = widen_pair_to_bfloat16((codes >> 8) & 0x00ff00ffu);
    }
  }
};

template <class Widening>
void widen_inputs(const char* codes, int64_t inputs, char* to) {
  for (int64_t input = 0; input < inputs; input += 4) {
    for (int v = 0; v < kPanelVectors; ++v) {
      Words cells[Widening::kCells];
      Widening::widen(load_words(codes + v * kLanes * kCellBytes), cells);
NOVACRON_UNROLL
      for (int i = 0; i < Widening::kCells; ++i) {
        store_words(to + (i * kPanel + v * kLanes) * kCellBytes, cells[i]);
      }
    }
    codes += kPanel * kCellBytes;
    to += Widening::kCells * kPanel * kCellBytes;
  }
}

// For a row that is alone, memory is the limit, and the way through the cache too long. `inputs` are
// whole words. The chains are those of multiply_group.
template <class Widening>
void multiply_group_alone(const typename Widening::Cells::Other* x, const char* codes,
                          int64_t inputs, float* sums) {
  constexpr int kVectors = vectors_for(1) < kPanelVectors ? vectors_for(1) : kPanelVectors;
  for (int first = 0; first < kPanelVectors; first += kVectors) {
    const char* from = codes + first * kLanes * kCellBytes;
    Floats sum[kVectors] = {};
    for (int64_t word = 0; word < inputs / 4; ++word, from += kPanel * kCellBytes) {
      __builtin_prefetch(from + kFloat8AheadBytes);
NOVACRON_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        Words cells[Widening::kCells];
        Widening::widen(load_words(from + v * kLanes * kCellBytes), cells);
NOVACRON_UNROLL
        for (int i = 0; i < Widening::kCells; ++i) {
          sum[v] = Widening::Cells::add_product(sum[v], x[word * Widening::kCells + i], cells[i]);
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) store(sums + (first + v) * kLanes, sum[v]);
  }
}

// The products of one group with some rows, not scaled yet.
template <class Widening>
void multiply_group(const typename Widening::Cells::Other* x, int64_t x_stride, int64_t rows,
                    const char* codes, int64_t inputs, float* sums) {
  if (rows == 1 && inputs % 4 == 0) return multiply_group_alone<Widening>(x, codes, inputs, sums);
  using Cells = typename Widening::Cells;
  alignas(64) char cells[kWidenedInputs / Cells::kElements * kPanel * kCellBytes];
  const int64_t tiles = divide_up(rows, kTileRows);
  for (int64_t first = 0; first < inputs; first += kWidenedInputs) {
    const int64_t count = smaller(kWidenedInputs, inputs - first);
    const char* from = codes + first * kPanel;
    prefetch(from + kFloat8AheadBytes, kWidenedInputs * kPanel);
    widen_inputs<Widening>(from, count, cells);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = rows * tile / tiles;
      multiply_some_rows<Cells>(rows * (tile + 1) / tiles - row,
                                x + row * x_stride + first / Cells::kElements, x_stride, cells,
                                divide_up(count, Cells::kElements), first == 0,
                                sums + row * kPanel);
    }
  }
}

template <class Widening, class Out>
void multiply_float8_block(const LinearCall& call, const typename Widening::Cells::Other* x,
                           int64_t x_stride, int64_t panel, int64_t first_row) {
  using Cells = typename Widening::Cells;
  alignas(64) float sums[kMaxSegments * kBlockRows * kPanel];
  alignas(64) float of_group[kBlockRows * kPanel];
  const int64_t groups = divide_up(call.inputs, kFloat8Group);
  const int64_t rows = smaller(kBlockRows, call.rows - first_row);
  const char* weights = static_cast<const char*>(call.weights) + panel * groups * kFloat8GroupBytes;
  x += first_row * x_stride;
  for (int segment = 0; segment < call.segments; ++segment) {
    float* to = sums + segment * kBlockRows * kPanel;
    memset(to, 0, rows * kPanel * sizeof(float));
    const int64_t last = groups * (segment + 1) / call.segments;
    for (int64_t group = groups * segment / call.segments; group < last; ++group) {
      const char* from = weights + group * kFloat8GroupBytes;
      const int64_t first = group * kFloat8Group;
      multiply_group<Widening>(x + first / Cells::kElements, x_stride, rows,
                               from + kFloat8ScaleBytes,
                               smaller(kFloat8Group, call.inputs - first), of_group);
      const float* scales = reinterpret_cast<const float*>(from);
      for (int64_t place = 0; place < rows * kPanel; place += kLanes) {
        const Floats scale = load(scales + place % kPanel);
        store(to + place, multiply_add(load(of_group + place), scale, load(to + place)));
      }
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    finish_row<typename Cells::Element, Out>(call, sums, first_row + row, row * kPanel,
                                             panel * kPanel);
  }
}

template <class Widening, class Out>
void float8_linear_of(ThreadPool& pool, const LinearCall& call) {
  using Cells = typename Widening::Cells;
  with_cells<Cells>(pool, call, [&](const typename Cells::Other* x, int64_t x_stride) {
    multiply_in_blocks(pool, call, [&](int64_t panel, int64_t first_row) {
      multiply_float8_block<Widening, Out>(call, x, x_stride, panel, first_row);
    });
  });
}

void any_linear(ThreadPool& pool, const LinearCall& call) {
  if (call.weight_type != kFloat8) return linear(pool, call);
  if (call.type == kFloat32) {
    float8_linear_of<Float8ToFloats, float>(pool, call);
  } else if (call.out_type == kFloat32) {
    float8_linear_of<Float8ToBFloat16, float>(pool, call);
  } else {
    float8_linear_of<Float8ToBFloat16, BFloat16>(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
