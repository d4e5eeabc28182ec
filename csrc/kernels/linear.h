// Products with packed weights of the inputs' own type.
//
// One task is one panel of 64 outputs and up to 48 rows. Each output is a chain of multiply-adds
// over a segment of the inputs, in order, in one lane; the segments are added as a tree. How many
// rows share a pass over the weights changes nothing in that.
#pragma once

#include "simd.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kTileRows = 6;
constexpr int kBlockRows = 48;
constexpr int kMaxSegments = 4;
constexpr int64_t kChunkCells = 16;  // 4 KiB of a panel
constexpr int64_t kMostRowsInChunks = 24;
constexpr int kPanelVectors = kPanel / kLanes;
constexpr int64_t kWorthWaking = 1024 * 1024;  // multiply-adds: some tens of microseconds
constexpr int64_t kWorthSharing = 128 * 1024;  // multiply-adds, with threads that are awake
constexpr int64_t kWorthClaiming = 32 * 1024;  // multiply-adds

// Vectors of outputs that fit into registers beside this many rows.
constexpr int vectors_for(int rows) {
  if (kLanes == 16) return 4;
  return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

// Adds to `sums`, or begins them.
template <class Cells, int kRows, int kVectors>
NOVACRON_INLINE void multiply_tile(const typename Cells::Other* x, int64_t x_stride,
                                   const char* weights, int64_t cells, bool begins, float* sums) {
  Floats sum[kRows][kVectors] = {};
  if (!begins) {
    for (int row = 0; row < kRows; ++row) {
      for (int v = 0; v < kVectors; ++v) sum[row][v] = load(sums + row * kPanel + v * kLanes);
    }
  }
  for (int64_t cell = 0; cell < cells; ++cell) {
    Words w[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      w[v] = load_words(weights + (cell * kPanel + v * kLanes) * kCellBytes);
    }
    for (int row = 0; row < kRows; ++row) {
      const typename Cells::Other other = x[row * x_stride + cell];
      for (int v = 0; v < kVectors; ++v) {
        sum[row][v] = Cells::add_product(sum[row][v], other, w[v]);
      }
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int v = 0; v < kVectors; ++v) store(sums + row * kPanel + v * kLanes, sum[row][v]);
  }
}

template <class Cells, int kRows>
void multiply_rows(const typename Cells::Other* x, int64_t x_stride, const char* weights,
                   int64_t cells, bool begins, float* sums) {
  constexpr int kVectors = vectors_for(kRows);
  for (int first = 0; first < kPanelVectors; first += kVectors) {
    const int64_t lane = first * kLanes;
    multiply_tile<Cells, kRows, kVectors>(x, x_stride, weights + lane * kCellBytes, cells, begins,
                                          sums + lane);
  }
}

template <class Cells>
void multiply_some_rows(int64_t rows, const typename Cells::Other* x, int64_t x_stride,
                        const char* weights, int64_t cells, bool begins, float* sums) {
  switch (rows) {
    case 1: return multiply_rows<Cells, 1>(x, x_stride, weights, cells, begins, sums);
    case 2: return multiply_rows<Cells, 2>(x, x_stride, weights, cells, begins, sums);
    case 3: return multiply_rows<Cells, 3>(x, x_stride, weights, cells, begins, sums);
    case 4: return multiply_rows<Cells, 4>(x, x_stride, weights, cells, begins, sums);
    case 5: return multiply_rows<Cells, 5>(x, x_stride, weights, cells, begins, sums);
    default: return multiply_rows<Cells, 6>(x, x_stride, weights, cells, begins, sums);
  }
}

NOVACRON_INLINE Floats sum_of_segments(const float* sums, int64_t place, int segments) {
  constexpr int64_t kStride = kBlockRows * kPanel;
  Floats total = load(sums + place);
  if (segments > 1) total += load(sums + kStride + place);
  if (segments > 2) total += load(sums + 2 * kStride + place) + load(sums + 3 * kStride + place);
  return total;
}

template <class Element, class Out>
void finish_row(const LinearCall& call, const float* sums, int64_t row, int64_t place,
                int64_t output) {
  const Element* bias = static_cast<const Element*>(call.bias);
  const Element* residual = static_cast<const Element*>(call.residual);
  Out* out = static_cast<Out*>(call.out) + row * call.out_stride + output;
  const int64_t outputs = smaller(kPanel, call.outputs - output);
  for_vectors(outputs, [&](int64_t lane, int64_t count) {
    Floats total = sum_of_segments(sums, place + lane, call.segments);
    if (bias != nullptr) total += load_up_to(bias + output + lane, count);
    if (residual != nullptr) {
      total += load_up_to(residual + row * call.residual_stride + output + lane, count);
    }
    store_up_to(out + lane, total, count);
  });
}

// A tile of rows goes through the panel at once. Some tiles share chunks of it, fetched ahead, so
// that arithmetic and memory have the same pace; with many, arithmetic takes much longer anyway.
template <class Cells, class Out>
void multiply_block(const LinearCall& call, const typename Cells::Other* x, int64_t x_stride,
                    int64_t panel, int64_t first_row) {
  alignas(64) float sums[kMaxSegments * kBlockRows * kPanel];
  constexpr int64_t kChunkBytes = kChunkCells * kPanel * kCellBytes;
  const int64_t cells = divide_up(call.inputs, Cells::kElements);
  const int64_t rows = smaller(kBlockRows, call.rows - first_row);
  const int64_t tiles = divide_up(rows, kTileRows);
  const bool in_chunks = tiles > 1 && rows <= kMostRowsInChunks;
  const char* weights = static_cast<const char*>(call.weights) + panel * cells * kPanel * kCellBytes;
  for (int segment = 0; segment < call.segments; ++segment) {
    const int64_t first = cells * segment / call.segments;
    const int64_t last = cells * (segment + 1) / call.segments;
    const int64_t step = in_chunks ? kChunkCells : last - first;
    int64_t cell = first;
    do {  // once, too, for a segment without inputs: its sums are zero
      const char* from = weights + cell * kPanel * kCellBytes;
      const int64_t count = smaller(step, last - cell);
      if (in_chunks) prefetch(from + 2 * kChunkBytes, kChunkBytes);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t row = rows * tile / tiles;
        multiply_some_rows<Cells>(rows * (tile + 1) / tiles - row,
                                  x + (first_row + row) * x_stride + cell, x_stride, from, count,
                                  cell == first, sums + (segment * kBlockRows + row) * kPanel);
      }
      cell += step;
    } while (cell < last);
  }
  for (int64_t row = 0; row < rows; ++row) {
    finish_row<typename Cells::Element, Out>(call, sums, first_row + row, row * kPanel,
                                             panel * kPanel);
  }
}

// Calls body(panel, first row) for every block of rows of every panel.
template <class Body>
void multiply_in_blocks(ThreadPool& pool, const LinearCall& call, Body body) {
  const int64_t blocks = divide_up(call.rows, kBlockRows);
  const int64_t tasks = divide_up(call.outputs, kPanel) * blocks;
  const int64_t work = smaller(kBlockRows, call.rows) * kPanel * call.inputs;
  const int64_t share = divide_up(tasks, pool.num_threads());
  const int64_t worth_sharing = pool.is_awake() ? kWorthSharing : kWorthWaking;
  const int64_t grain =
      work * tasks < worth_sharing ? tasks : smaller(divide_up(kWorthClaiming, work), share);
  parallel(pool, tasks, grain, [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) body(task / blocks, task % blocks * kBlockRows);
  });
}

template <class Cells, class Out>
void multiply(ThreadPool& pool, const LinearCall& call, const typename Cells::Other* x,
              int64_t x_stride) {
  multiply_in_blocks(pool, call, [&](int64_t panel, int64_t first_row) {
    multiply_block<Cells, Out>(call, x, x_stride, panel, first_row);
  });
}

// Calls multiply(x, x_stride) with the inputs as cells.
template <class Cells, class Multiply>
void with_cells(ThreadPool& pool, const LinearCall& call, Multiply multiply) {
  using Element = typename Cells::Element;
  using Other = typename Cells::Other;
  const Element* x = static_cast<const Element*>(call.x);
  if (Cells::can_read_in_place(x, call.inputs, call.x_stride)) {
    multiply(reinterpret_cast<const Other*>(x), call.x_stride / Cells::kElements);
    return;
  }
  const int64_t cells = divide_up(call.inputs, Cells::kElements);
  Scratch<Other> prepared(call.rows * cells);
  parallel(pool, call.rows, divide_up(kWorthClaiming, call.inputs), [&](int64_t row, int64_t last) {
    for (; row < last; ++row) {
      Cells::prepare(x + row * call.x_stride, call.inputs, prepared.data() + row * cells);
    }
  });
  multiply(static_cast<const Other*>(prepared.data()), cells);
}

template <class Cells, class Out>
void linear_of(ThreadPool& pool, const LinearCall& call) {
  with_cells<Cells>(pool, call, [&](const typename Cells::Other* x, int64_t x_stride) {
    multiply<Cells, Out>(pool, call, x, x_stride);
  });
}

void float_linear(ThreadPool& pool, const LinearCall& call) {
  if (call.type == kFloat32) {
    linear_of<FloatCells, float>(pool, call);
  } else if (call.out_type == kFloat32) {
    linear_of<BFloat16Cells, float>(pool, call);
  } else {
    linear_of<BFloat16Cells, BFloat16>(pool, call);
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
