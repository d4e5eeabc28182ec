// Scores: the products of a tile's queries with keys, in whatever format the cache holds these.
#pragma once

#include "kv_store.h"
#include "tile.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

struct KeyPass;

// What the format of keys decides, chosen once per call.
struct KeyFormat {
  int64_t elements;     // of a cell
  int64_t query_bytes;  // that a cell of a query takes
  void (*store_tokens)(const AttentionCall& call, int64_t token, int64_t last);
  // Brings the queries into the form that keys are multiplied with.
  void (*prepare)(KeyPass& pass);
  // Products of queries [query, query + count) with keys [start, end), as [query][kGroup].
  void (*score)(const KeyPass& pass, int64_t query, int64_t count, int64_t start, int64_t end,
                float* scores);
};

// The queries of a tile, the keys that they see, and where both are divided.
struct KeyPass {
  KeyPass(const KeyFormat& format, const Tile& tile)
      : format(format),
        tile(tile),
        keys(tile, tile.call.key_cache),
        cells(kv_padded_dims(tile.call.key_cache.format, tile.call.head_dim) / format.elements),
        group_cells(kv_group_size(tile.call.key_cache.format, tile.call.head_dim) /
                    format.elements),
        groups(divide_up(cells, group_cells)),
        queries(tile.num_queries * cells * format.query_bytes),
        scales(tile.num_queries),
        starts(tile.num_queries * groups) {}

  void prepare() { format.prepare(*this); }
  void score(int64_t query, int64_t count, int64_t start, int64_t end, float* scores) const {
    format.score(*this, query, count, start, end, scores);
  }

  const KeyFormat& format;
  const Tile& tile;
  const PagedHead keys;
  const int64_t cells, group_cells, groups;  // cells of a token and of those that share a scale
  Scratch<char, kNearQueries * 512> queries;  // [query][cell]
  Scratch<float, kNearQueries> scales;        // of queries
  // Of sums of products with integers: [query][group].
  Scratch<int32_t, kNearQueries * 4> starts;
};

template <class Format>
struct KeysIn {
  using Other = typename Format::Other;
  using Sum = typename Format::Sum;

  static void store_tokens(const AttentionCall& call, int64_t token, int64_t last) {
    const TokenStore<Format> store(call, call.key_cache);
    for (; token < last; ++token) store.store_keys(token);
  }

  static Other* query_of(const KeyPass& pass, int64_t query) {
    return reinterpret_cast<Other*>(pass.queries.data()) + query * pass.cells;
  }

  static void prepare(KeyPass& pass) {
    const Tile& tile = pass.tile;
    const AttentionCall& call = tile.call;
    const int64_t num_queries = tile.num_queries;
    Scratch<float, 256> row(call.head_dim);
    memset(pass.queries.data(), 0, num_queries * pass.cells * sizeof(Other));
    for (int64_t query = 0; query < num_queries; ++query) {
      const int64_t start = tile.token(query) * call.query_token_stride +
                            tile.head(query) * call.query_head_stride;
      to_floats(call.type, call.query, start, call.head_dim, row.data());
      Other* to = query_of(pass, query);
      pass.scales.data()[query] = Format::prepare(row.data(), call.head_dim, to);
      if constexpr (Format::kIsInteger) {
        for (int64_t group = 0; group < pass.groups; ++group) {
          pass.starts.data()[query * pass.groups + group] =
              Format::start(to + group * pass.group_cells, pass.group_cells);
        }
      }
    }
  }

  static void score(const KeyPass& pass, int64_t query, int64_t count, int64_t start, int64_t end,
                    float* scores) {
    switch (count) {
      case 1: return score_together<1>(pass, query, start, end, scores);
      case 2: return score_together<2>(pass, query, start, end, scores);
      case 3: return score_together<3>(pass, query, start, end, scores);
      default: return score_together<4>(pass, query, start, end, scores);
    }
  }
  template <int kQueries>
  static void score_together(const KeyPass& pass, int64_t query, int64_t start, int64_t end,
                             float* scores) {
    const bool may_be_cut = pass.keys.block_size() < kLanes;
    const auto score = may_be_cut ? score_vectors<kQueries, true> : score_vectors<kQueries, false>;
    for (int vector = 0; start + vector * kLanes < end; vector += kVectorsTogether) {
      score(pass, query, start + vector * kLanes, end, scores + vector * kLanes);
    }
  }

  // With the keys from `place` on; those from `end` on are not meant.
  template <int kQueries, bool kMayBeCut>
  static void score_vectors(const KeyPass& pass, int64_t query, int64_t place, int64_t end,
                            float* scores) {
    PagedHead::Places places[kVectorsTogether];
    for (int v = 0; v < kVectorsTogether; ++v) {
      places[v] = pass.keys.places_from(place + v * kLanes < end ? place + v * kLanes : place, end);
    }
    const Other* queries = query_of(pass, query);
    for (int64_t group = 0; group < pass.groups; ++group) {
      const int64_t first = group * pass.group_cells;
      const int64_t last = smaller(first + pass.group_cells, pass.cells);
      Sum sum[kQueries][kVectorsTogether];
      for (int i = 0; i < kQueries; ++i) {
        Sum start = {};
        if constexpr (Format::kIsInteger) {
          start += pass.starts.data()[(query + i) * pass.groups + group];
        }
        for (int v = 0; v < kVectorsTogether; ++v) sum[i][v] = start;
      }
      for (int64_t cell = first; cell < last; ++cell) {
        const int64_t offset = cell * pass.keys.block_size() * 4;
        for (int v = 0; v < kVectorsTogether; ++v) {
          const Words keys = places[v].template load_at<4, Words, kMayBeCut>(offset);
          for (int i = 0; i < kQueries; ++i) {
            sum[i][v] = Format::add_product(sum[i][v], queries[i * pass.cells + cell], keys);
          }
        }
      }
      for (int v = 0; v < kVectorsTogether; ++v) {
        Floats scale = {};
        if constexpr (Format::kIsScaled) scale = pass.keys.load_scales(places[v], group);
        for (int i = 0; i < kQueries; ++i) {
          float* to = scores + i * kGroup + v * kLanes;
          Floats score;
          if constexpr (Format::kIsInteger) {
            score = __builtin_convertvector(sum[i][v], Floats);
          } else {
            score = sum[i][v];
          }
          if constexpr (Format::kIsScaled) score = score * pass.scales.data()[query + i] * scale;
          store(to, group == 0 ? score : load(to) + score);
        }
      }
    }
  }

  static constexpr KeyFormat kFormat = {Format::kElements, sizeof(Other), store_tokens, prepare, score};
};

inline const KeyFormat& key_format(int32_t format) {
  switch (format) {
    case kKVFloat32: return KeysIn<Float32Format>::kFormat;
    case kKVBFloat16: return KeysIn<BFloat16Format>::kFormat;
    case kKVFloat16: return KeysIn<Float16Format>::kFormat;
    case kKVInt8: return KeysIn<Int8Format>::kFormat;
    case kKVFloat8: return KeysIn<Float8Format>::kFormat;
    default: return KeysIn<Int4Format>::kFormat;
  }
}

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
