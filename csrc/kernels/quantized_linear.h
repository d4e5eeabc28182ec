// Products of int8 or int4 weights with inputs that are rounded to int8 for the occasion.
//
// A group is 32, 64 or 128 inputs that share a scale for each output of the weights; the inputs of a
// row share theirs over one such group or over a few neighbours. The products of a group are added as
// whole numbers, exactly, and then, as floats, those of the neighbours. What these stand for is added
// to the chain of the output's segment. So rows, tasks and threads change nothing here either, and no
// scale reaches beyond its group.
//
// Weights are stored without a sign, as value + offset. What that adds to a sum depends on the
// inputs alone, so that a sum begins with it taken away.
#pragma once

#include "linear.h"
#include "rounded_rows.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kRoundedTileRows = kLanes == 16 ? 6 : 4;
constexpr int kCellsInARow = 8;  // of a group, which has so many or a multiple
constexpr int64_t kScaleBytes = kPanel * sizeof(BFloat16);
// Of a panel, what some tiles of rows read in turn, and how far ahead of it they fetch, or a tile that
// is alone. More crowds the nearest cache, which holds the sums and inputs of these rows, too.
constexpr int64_t kRoundedChunkBytes = 12 * 1024;
constexpr int64_t kAheadBytes = 12 * 1024;
constexpr int64_t kAheadAloneBytes = 8 * 1024;
constexpr int64_t kLargeGroupBytes = 4 * 1024;
constexpr int64_t kMostRowsInOnePass = 8;

template <int kValue>
struct Count {
  static constexpr int value = kValue;
};

struct Int8Weights {
  static constexpr int kOffset = 128;
  static constexpr bool kCanShare = false;  // the scale of inputs, with neighbouring groups
  static constexpr int kCellsPerWord = 1;
  static NOVACRON_INLINE Words cell(Words words, int) { return words; }
};

// Two neighbouring cells to a word, the second in the upper halves of its bytes.
struct Int4Weights {
  static constexpr int kOffset = 8;
  static constexpr bool kCanShare = true;
  static constexpr int kCellsPerWord = 2;
  static NOVACRON_INLINE Words cell(Words words, int part) {
    return (part == 0 ? words : words >> 4) & 0x0f0f0f0fu;
  }
};

template <class Weights, int kCells>
constexpr int64_t bytes_of_group() {
  return kScaleBytes + kCells * kPanel * kCellBytes / Weights::kCellsPerWord;
}

// Whether few rows should go through a group as it comes from memory, in one pass.
template <class Weights, int kCells, int kSharing>
constexpr bool is_large_group() {
  return kSharing == 1 && bytes_of_group<Weights, kCells>() > kLargeGroupBytes;
}

// Where the groups of a panel lie that a tile of rows is multiplied with.
struct Chunk {
  const char* weights;
  int64_t first, last;  // groups
  int64_t group_bytes;
  bool begins;              // the sums, with the products of the first groups
  const char* ahead;        // the tile's part of what comes next, which it fetches meanwhile
  int64_t bytes_of_vector;  // of that part, with each group and vector of outputs
};

// The products of a group, exactly.
template <class Weights, int kCells, int kRows, int kVectors>
NOVACRON_INLINE void add_bytes(const RoundedRows& x, int64_t row, int64_t group, const char* weights,
                               int64_t lane, Ints (&sum)[kRows][kVectors]) {
  const int64_t place = x.place(row, group);
  const ByteCell* cells = x.cells + place * kCells;
  const char* packed = weights + lane * kCellBytes;
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
}

// How many rows go through the weights together: no more than a tile of them, which then fetches what
// lies ahead group after group; more, in one pass; or more than that.
enum class Crowd { kTile, kFew, kMany };

// Whether a tile of a crowd can have so many rows, so that only such code is made.
constexpr bool is_tile_of(Crowd crowd, int rows) {
  if (crowd == Crowd::kTile) return true;
  return rows >= kRoundedTileRows / 2 &&
         (crowd == Crowd::kMany || rows <= kMostRowsInOnePass / 2);
}

// Adds the products of a chunk to the sums of kRows rows, with kVectors vectors of outputs from
// `lane` on.
template <class Weights, int kCells, int kSharing, Crowd kCrowd, int kRows, int kVectors>
NOVACRON_INLINE void add_groups(const RoundedRows& x, int64_t row, const Chunk& chunk, int64_t lane,
                                float* sums) {
  const char* weights = chunk.weights;
  const char* ahead =
      chunk.ahead + lane / kLanes * (chunk.last - chunk.first) * chunk.bytes_of_vector;
  for (int64_t first = chunk.first; first < chunk.last; first += kSharing) {
    Floats products[kRows][kVectors] = {};
NOVACRON_ROLL
    for (int64_t group = first; group < first + kSharing; ++group, weights += chunk.group_bytes) {
      if (kCrowd == Crowd::kTile) {
        constexpr int64_t kPart = bytes_of_group<Weights, kCells>() * kVectors * kLanes / kPanel;
        prefetch(weights + kAheadAloneBytes + kPart * (lane / (kVectors * kLanes)), kPart);
      } else {
        prefetch(ahead, kVectors * chunk.bytes_of_vector);
        ahead += kVectors * chunk.bytes_of_vector;
      }
      Ints sum[kRows][kVectors];
      add_bytes<Weights, kCells, kRows, kVectors>(x, row, group, weights + kScaleBytes, lane, sum);
      const BFloat16* scales = reinterpret_cast<const BFloat16*>(weights) + lane;
NOVACRON_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const Floats scale = load(scales + v * kLanes);
NOVACRON_UNROLL
        for (int r = 0; r < kRows; ++r) {
          products[r][v] = multiply_add(__builtin_convertvector(sum[r][v], Floats), scale, products[r][v]);
        }
      }
    }
    const bool begins = chunk.begins && first == chunk.first;
    const float* scales = x.scales + x.place(row, first / kSharing);
NOVACRON_UNROLL
    for (int r = 0; r < kRows; ++r) {
NOVACRON_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        float* to = sums + r * kPanel + lane + v * kLanes;
        const Floats before = begins ? Floats{} : load(to);
        store(to, multiply_add(products[r][v], Floats{} + scales[r], before));
      }
    }
  }
}

// Two vectors of outputs, not four: then the processor has registers left to begin the next group
// while the sums of this one become floats. A row or two need more to keep it busy; and with few
// rows, a large group should be gone through as it comes from memory, in one pass.
template <class Weights, int kCells, int kSharing, Crowd kCrowd, int kRows>
void add_groups_of_rows(const RoundedRows& x, int64_t row, const Chunk& chunk, float* sums) {
  constexpr bool kInOnePass = kCrowd != Crowd::kMany && is_large_group<Weights, kCells, kSharing>();
  constexpr bool kIsWide = kRows == 1 || (kLanes == 16 && (kRows == 2 || kInOnePass));
  constexpr int kVectors = kIsWide ? 4 : 2;
  for (int64_t lane = 0; lane < kPanel; lane += kVectors * kLanes) {
    add_groups<Weights, kCells, kSharing, kCrowd, kRows, kVectors>(x, row, chunk, lane, sums);
  }
}

template <class Weights, int kCells, int kSharing, Crowd kCrowd>
void add_groups_of_some_rows(int64_t rows, const RoundedRows& x, int64_t row, const Chunk& chunk,
                             float* sums) {
  const auto add = [&](auto count) {
    constexpr int kRows = decltype(count)::value;
    if constexpr (is_tile_of(kCrowd, kRows)) {
      add_groups_of_rows<Weights, kCells, kSharing, kCrowd, kRows>(x, row, chunk, sums);
    }
  };
  switch (rows) {
    case 1: return add(Count<1>{});
    case 2: return add(Count<2>{});
    case 3: return add(Count<3>{});
    case 4: return add(Count<4>{});
  }
  if constexpr (kRoundedTileRows > 4) return rows == 5 ? add(Count<5>{}) : add(Count<6>{});
}

// Tiles of rows go through a chunk of the weights in turn, and each fetches its part of what comes
// next, a little with each group: more at once would keep the products waiting.
template <class Weights, int kCells, int kSharing, class Element, class Out>
void multiply_rounded_block(const LinearCall& call, const RoundedRows& x, int64_t panel,
                            int64_t first_row) {
  alignas(64) float sums[kMaxSegments * kBlockRows * kPanel];
  constexpr int64_t kGroupBytes = bytes_of_group<Weights, kCells>();
  const char* weights = static_cast<const char*>(call.weights) + panel * x.groups * kGroupBytes;
  const int64_t rows = smaller(kBlockRows, call.rows - first_row);
  const int64_t tiles = divide_up(rows, kRoundedTileRows);
  const int64_t step =
      kSharing * (tiles == 1 ? 1 : larger(1, kRoundedChunkBytes / (kSharing * kGroupBytes)));
  constexpr Crowd kFew =
      is_large_group<Weights, kCells, kSharing>() ? Crowd::kFew : Crowd::kMany;
  const auto add = tiles == 1 ? add_groups_of_some_rows<Weights, kCells, kSharing, Crowd::kTile>
                   : rows <= kMostRowsInOnePass
                       ? add_groups_of_some_rows<Weights, kCells, kSharing, kFew>
                       : add_groups_of_some_rows<Weights, kCells, kSharing, Crowd::kMany>;
  int64_t first_rows[kBlockRows + 1];  // of tiles
  for (int64_t tile = 0; tile <= tiles; ++tile) first_rows[tile] = rows * tile / tiles;
  const int64_t bytes_of_vector = divide_up(kGroupBytes, tiles * kPanelVectors);
  const int64_t shares = x.groups / kSharing;
  for (int segment = 0; segment < call.segments; ++segment) {
    float* to = sums + segment * kBlockRows * kPanel;
    const int64_t begin = shares * segment / call.segments * kSharing;
    const int64_t last = shares * (segment + 1) / call.segments * kSharing;
    if (begin == last) memset(to, 0, rows * kPanel * sizeof(float));
    for (int64_t group = begin; group < last; group += step) {
      Chunk chunk = {weights + group * kGroupBytes, group, smaller(group + step, last), kGroupBytes,
                     group == begin, nullptr, bytes_of_vector};
      chunk.ahead = chunk.weights + kAheadBytes;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = first_rows[tile];
        add(first_rows[tile + 1] - row, x, first_row + row, chunk, to + row * kPanel);
        chunk.ahead += (chunk.last - group) * kPanelVectors * bytes_of_vector;
      }
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    finish_row<Element, Out>(call, sums, first_row + row, row * kPanel, panel * kPanel);
  }
}

template <class Weights, class Element, class Out>
void rounded_linear_of(ThreadPool& pool, const LinearCall& call) {
  const int64_t groups = divide_up(call.inputs, call.group);
  const int64_t cells_per_group = call.group / 4, sharing = call.input_group / call.group;
  Scratch<ByteCell> cells(call.rows * groups * cells_per_group);
  Scratch<float> scales(call.rows * groups);
  Scratch<int32_t> starts(call.rows * groups);
  const RoundedRows x = {cells.data(),  scales.data(), starts.data(),
                         call.rows, groups,        cells_per_group};
  round_all_rows<Weights, Element>(pool, call, x);
  const auto multiply_all = [&](auto num_cells, auto num_sharing) {
    constexpr int kCells = decltype(num_cells)::value, kSharing = decltype(num_sharing)::value;
    multiply_in_blocks(pool, call, [&](int64_t panel, int64_t first_row) {
      multiply_rounded_block<Weights, kCells, kSharing, Element, Out>(call, x, panel, first_row);
    });
  };
  if constexpr (Weights::kCanShare) {
    if (cells_per_group == 8 && sharing == 4) return multiply_all(Count<8>{}, Count<4>{});
    if (cells_per_group == 8 && sharing == 2) return multiply_all(Count<8>{}, Count<2>{});
    if (cells_per_group == 16 && sharing == 2) return multiply_all(Count<16>{}, Count<2>{});
  }
  switch (cells_per_group) {
    case 8: return multiply_all(Count<8>{}, Count<1>{});
    case 16: return multiply_all(Count<16>{}, Count<1>{});
    default: return multiply_all(Count<32>{}, Count<1>{});
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
