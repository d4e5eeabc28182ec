// Products of int8 or int4 weights with inputs that are rounded to int8 for the occasion.
//
// A group is 32, 64 or 128 inputs that share a scale: one for each output of the weights, one for
// each row of the inputs. The products of a group are added as whole numbers, exactly. Then, group
// after group, what they stand for is added to the chain of the output's segment. So rows, tasks
// and threads change nothing here either, and no scale reaches beyond its group.
//
// Weights are stored without a sign, as value + offset. What that adds to a sum depends on the
// inputs alone, so that a sum begins with it taken away.
#pragma once

#include "linear.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kRoundedTileRows = kLanes == 16 ? 6 : 4;
constexpr int kCellsInARow = 8;  // of a group, which has so many or a multiple
constexpr int64_t kScaleBytes = kPanel * sizeof(BFloat16);
constexpr int64_t kWorthClaimingToRound = 8 * 1024;  // inputs
// Of a panel, what some tiles of rows read in turn, and how far ahead of it they fetch. More crowds
// the nearest cache, which holds the sums and inputs of these rows, too.
constexpr int64_t kRoundedChunkBytes = 8 * 1024;
constexpr int64_t kAheadBytes = 8 * 1024;
constexpr int64_t kMostRowsInOnePass = 8;
constexpr float kCountsAsZero = 1e-30f;

// The inputs of a call: [groups][rows][cells of a group], and for each group and row the scale and
// what its sums begin with. The rows of a group lie side by side, because a tile reads them together:
// a whole row apart they would all fall into the same few sets of the cache.
struct RoundedRows {
  ByteCell* cells;
  float* scales;
  int32_t* starts;
  int64_t rows, groups, cells_per_group;

  int64_t place(int64_t row, int64_t group) const { return group * rows + row; }
};

struct Int8Weights {
  static constexpr int kOffset = 128;
  static constexpr int kCellsPerWord = 1;
  static NOVACRON_INLINE Words cell(Words words, int) { return words; }
};

// Two neighbouring cells to a word, the second in the upper halves of its bytes.
struct Int4Weights {
  static constexpr int kOffset = 8;
  static constexpr int kCellsPerWord = 2;
  static NOVACRON_INLINE Words cell(Words words, int part) {
    return (part == 0 ? words : words >> 4) & 0x0f0f0f0fu;
  }
};

// Where the groups of a panel lie that a tile of rows is multiplied with.
struct Chunk {
  const char* weights;
  int64_t first, last;  // groups
  int64_t group_bytes;
};

// Adds the products of a chunk to the sums of kRows rows, with kVectors vectors of outputs from
// `lane` on.
template <class Weights, int kCells, int kRows, int kVectors>
NOVACRON_INLINE void add_groups(const RoundedRows& x, int64_t row, const Chunk& chunk, int64_t lane,
                                float* sums) {
  const char* weights = chunk.weights;
  for (int64_t group = chunk.first; group < chunk.last; ++group, weights += chunk.group_bytes) {
    const int64_t place = x.place(row, group);
    const ByteCell* cells = x.cells + place * kCells;
    const char* packed = weights + kScaleBytes + lane * kCellBytes;
    Ints sum[kRows][kVectors];
NOVACRON_UNROLL
    for (int r = 0; r < kRows; ++r) {
NOVACRON_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Ints{} + x.starts[place + r];
    }
NOVACRON_ROLL
    for (int first = 0; first < kCells; first += kCellsInARow) {
NOVACRON_UNROLL
      for (int cell = 0; cell < kCellsInARow; cell += Weights::kCellsPerWord) {
        Words words[kVectors];
NOVACRON_UNROLL
        for (int v = 0; v < kVectors; ++v) words[v] = load_words(packed + v * kLanes * kCellBytes);
        packed += kPanel * kCellBytes;
NOVACRON_UNROLL
        for (int part = 0; part < Weights::kCellsPerWord; ++part) {
          Words w[kVectors];
NOVACRON_UNROLL
          for (int v = 0; v < kVectors; ++v) w[v] = Weights::cell(words[v], part);
NOVACRON_UNROLL
          for (int r = 0; r < kRows; ++r) {
            const ByteCell other = cells[r * kCells + cell + part];
NOVACRON_UNROLL
            for (int v = 0; v < kVectors; ++v) sum[r][v] = add_byte_products(sum[r][v], other, w[v]);
          }
        }
      }
      cells += kCellsInARow;
    }
    const BFloat16* scales = reinterpret_cast<const BFloat16*>(weights) + lane;
NOVACRON_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Floats scale = load(scales + v * kLanes);
NOVACRON_UNROLL
      for (int r = 0; r < kRows; ++r) {
        float* to = sums + r * kPanel + lane + v * kLanes;
        const Floats product =
            __builtin_convertvector(sum[r][v], Floats) * x.scales[place + r];
        store(to, multiply_add(product, scale, load(to)));
      }
    }
  }
}

// Two vectors of outputs, not four: then the processor has registers left to begin the next group
// while the sums of this one become floats. A row or two need more to keep it busy; and with few
// rows, a large group should be gone through as it comes from memory, in one pass.
template <class Weights, int kCells, int kRows, bool kInOnePass>
void add_groups_of_rows(const RoundedRows& x, int64_t row, const Chunk& chunk, float* sums) {
  constexpr bool kIsWide = kRows == 1 || (kLanes == 16 && (kRows == 2 || kInOnePass));
  constexpr int kVectors = kIsWide ? 4 : 2;
  for (int64_t lane = 0; lane < kPanel; lane += kVectors * kLanes) {
    add_groups<Weights, kCells, kRows, kVectors>(x, row, chunk, lane, sums);
  }
}

template <class Weights, int kCells, bool kInOnePass>
void add_groups_of_some_rows(int64_t rows, const RoundedRows& x, int64_t row, const Chunk& chunk,
                             float* sums) {
  switch (rows) {
    case 1: return add_groups_of_rows<Weights, kCells, 1, kInOnePass>(x, row, chunk, sums);
    case 2: return add_groups_of_rows<Weights, kCells, 2, kInOnePass>(x, row, chunk, sums);
    case 3: return add_groups_of_rows<Weights, kCells, 3, kInOnePass>(x, row, chunk, sums);
    case 4: return add_groups_of_rows<Weights, kCells, 4, kInOnePass>(x, row, chunk, sums);
  }
  if constexpr (kRoundedTileRows > 4) {
    if (rows == 5) return add_groups_of_rows<Weights, kCells, 5, kInOnePass>(x, row, chunk, sums);
    return add_groups_of_rows<Weights, kCells, 6, kInOnePass>(x, row, chunk, sums);
  }
}

// Tiles of rows go through a chunk of the weights in turn, and each fetches its part of what comes
// next: all of it at once would keep the first tile waiting.
template <class Weights, int kCells, class Element, class Out>
void multiply_rounded_block(const LinearCall& call, const RoundedRows& x, int64_t panel,
                            int64_t first_row) {
  alignas(64) float sums[kMaxSegments * kBlockRows * kPanel];
  constexpr int64_t kGroupBytes =
      kScaleBytes + kCells * kPanel * kCellBytes / Weights::kCellsPerWord;
  const char* weights = static_cast<const char*>(call.weights) + panel * x.groups * kGroupBytes;
  const int64_t rows = smaller(kBlockRows, call.rows - first_row);
  const int64_t tiles = divide_up(rows, kRoundedTileRows);
  const int64_t step = tiles == 1 ? 1 : larger(1, kRoundedChunkBytes / kGroupBytes);
  constexpr bool kIsLarge = kGroupBytes > kRoundedChunkBytes / 2;
  const auto add = rows <= kMostRowsInOnePass ? add_groups_of_some_rows<Weights, kCells, kIsLarge>
                                              : add_groups_of_some_rows<Weights, kCells, false>;
  for (int segment = 0; segment < call.segments; ++segment) {
    float* to = sums + segment * kBlockRows * kPanel;
    memset(to, 0, rows * kPanel * sizeof(float));
    const int64_t last = x.groups * (segment + 1) / call.segments;
    for (int64_t group = x.groups * segment / call.segments; group < last; group += step) {
      const Chunk chunk = {weights + group * kGroupBytes, group, smaller(group + step, last),
                           kGroupBytes};
      const int64_t chunk_bytes = (chunk.last - group) * kGroupBytes;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = rows * tile / tiles;
        prefetch(chunk.weights + kAheadBytes + chunk_bytes * tile / tiles, chunk_bytes / tiles);
        add(rows * (tile + 1) / tiles - row, x, first_row + row, chunk, to + row * kPanel);
      }
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    finish_row<Element, Out>(call, sums, first_row + row, row * kPanel, panel * kPanel);
  }
}

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

// Rounds a group to whole numbers up to 127, so that its largest value becomes 127 or -127. A value
// that is not finite makes the scale so, and with it every product.
template <class Element>
NOVACRON_INLINE void round_group(const Element* from, int64_t count, int64_t group_size, int offset, int8_t* to,
                 float* scale, int32_t* start) {
  const int32_t bits = bits_of_largest(from, count);
  float largest;
  memcpy(&largest, &bits, sizeof largest);
  const bool is_zero = largest < kCountsAsZero;
  const float inverse = is_zero ? 0.0f : 127.0f / largest;
  Ints total = {};
  for_vectors(count, [&](int64_t index, int64_t lanes) {
    const Ints rounded = nearest(load_up_to(from + index, lanes) * inverse);
    total += rounded;
    store_bytes(to + index, rounded, lanes);
  });
  if (count < group_size) memset(to + count, 0, group_size - count);
  *scale = is_zero ? 0.0f : largest * (1.0f / 127.0f);
  *start = -offset * sum_of_lanes(total);
}

template <class Weights, class Element>
void round_row(const LinearCall& call, int64_t row, const RoundedRows& x) {
  const Element* from = static_cast<const Element*>(call.x) + row * call.x_stride;
  for (int64_t group = 0; group < x.groups; ++group) {
    alignas(64) int8_t room[kLargestGroup];
    const int64_t first = group * call.group, place = x.place(row, group);
    ByteCell* cells = x.cells + place * x.cells_per_group;
    int8_t* bytes = bytes_before(cells, room);
    round_group(from + first, smaller(call.group, call.inputs - first), call.group,
                Weights::kOffset, bytes, x.scales + place, x.starts + place);
    make_byte_cells(bytes, x.cells_per_group, cells);
  }
}

template <class Weights, class Element, class Out>
void rounded_linear_of(ThreadPool& pool, const LinearCall& call) {
  const int64_t groups = divide_up(call.inputs, call.group);
  const int64_t cells_per_group = call.group / 4;
  Scratch<ByteCell> cells(call.rows * groups * cells_per_group);
  Scratch<float> scales(call.rows * groups);
  Scratch<int32_t> starts(call.rows * groups);
  const RoundedRows x = {cells.data(),  scales.data(), starts.data(),
                         call.rows, groups,        cells_per_group};
  parallel(pool, call.rows, divide_up(kWorthClaimingToRound, call.inputs),
           [&](int64_t row, int64_t last) {
             for (; row < last; ++row) round_row<Weights, Element>(call, row, x);
           });
  const auto multiply_all = [&](auto block) { multiply_in_blocks(pool, call, block); };
  switch (cells_per_group) {
    case 8: return multiply_all([&](int64_t panel, int64_t first_row) {
      multiply_rounded_block<Weights, 8, Element, Out>(call, x, panel, first_row);
    });
    case 16: return multiply_all([&](int64_t panel, int64_t first_row) {
      multiply_rounded_block<Weights, 16, Element, Out>(call, x, panel, first_row);
    });
    default: return multiply_all([&](int64_t panel, int64_t first_row) {
      multiply_rounded_block<Weights, 32, Element, Out>(call, x, panel, first_row);
    });
  }
}

template <class Weights>
void rounded_linear(ThreadPool& pool, const LinearCall& call) {
  if (call.type == kFloat32) {
    rounded_linear_of<Weights, float, float>(pool, call);
  } else if (call.out_type == kFloat32) {
    rounded_linear_of<Weights, BFloat16, float>(pool, call);
  } else {
    rounded_linear_of<Weights, BFloat16, BFloat16>(pool, call);
  }
}

void linear(ThreadPool& pool, const LinearCall& call) {
  switch (call.weight_type) {
    case kInt8: return rounded_linear<Int8Weights>(pool, call);
    case kInt4: return rounded_linear<Int4Weights>(pool, call);
    default: return float_linear(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
