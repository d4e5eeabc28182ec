// A tile of queries, and the blocks of the cache that it reads.
#pragma once

#include "kv_formats.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

constexpr int kGroup = 64;    // keys per step of the softmax
constexpr int kTogether = 4;  // queries that share the loads of keys and values
constexpr int kVectorsTogether = kLanes == 16 ? 4 : 2;
constexpr int kGroupVectors = kGroup / kLanes;
constexpr int64_t kNearQueries = 8;  // of a decode, as many as models mostly have

// Some tokens of a row with all query heads that share one key-value head. A query is one head of
// one token; they are counted token by token.
struct Tile {
  const AttentionCall& call;
  const int64_t row, kv_head;
  const int64_t heads, num_queries;
  const int64_t first_token, first_position;

  // The tokens [first, last) of the row.
  Tile(const AttentionCall& call, int64_t row, int64_t kv_head, int64_t first, int64_t last)
      : call(call),
        row(row),
        kv_head(kv_head),
        heads(call.num_heads / call.num_kv_heads),
        num_queries((last - first) * heads),
        first_token(call.rows[row * 3] + first),
        first_position(call.rows[row * 3 + 1] + first) {}

  int64_t token(int64_t query) const { return first_token + query / heads; }
  int64_t head(int64_t query) const { return kv_head * heads + query % heads; }
  int64_t position(int64_t query) const { return first_position + query / heads; }
  int64_t last_position() const { return position(num_queries - 1); }
  int64_t first_seen(int64_t query) const {
    return call.window == 0 ? 0 : larger(0, position(query) + 1 - call.window);
  }
};

// The cached keys, or values, that a tile sees.
class PagedHead {
 public:
  PagedHead(const Tile& tile, const KVCache& cache)
      : start_(static_cast<const char*>(cache.blocks) + tile.kv_head * cache.head_stride),
        table_(tile.call.block_tables + tile.row * tile.call.table_stride),
        block_stride_(cache.block_stride),
        block_bytes_(kv_block_bytes(cache.format, tile.call.block_size, tile.call.head_dim)),
        block_shift_(__builtin_ctzll(tile.call.block_size)),
        scales_start_(kv_scales_start(cache.format, tile.call.block_size, tile.call.head_dim)) {}

  int64_t block_size() const { return int64_t{1} << block_shift_; }
  int64_t offset_of(int64_t place) const { return place & (block_size() - 1); }
  const char* block_of(int64_t place) const {
    return start_ + table_[place >> block_shift_] * block_stride_;
  }
  // The first place after those in the block of this one.
  int64_t next_block(int64_t place) const { return ((place >> block_shift_) + 1) << block_shift_; }

  // Has the blocks of the tokens [start, end) on their way into the cache of this core. Blocks lie
  // apart, so the hardware does not see which one is next.
  void prefetch(int64_t start, int64_t end) const {
    constexpr int64_t kCacheLine = 64;
    for (int64_t place = start; place < end; place += block_size()) {
      const char* const block = block_of(place);
      for (int64_t byte = 0; byte < block_bytes_; byte += kCacheLine) {
        __builtin_prefetch(block + byte);
      }
    }
  }

  // Where kLanes neighbouring tokens lie: in one block, or in two of eight.
  struct Places {
    const char* near;
    const char* far;  // or null
    int64_t offset;   // in the block

    // `bytes` of a token, tokens side by side, from `start` in the block. Without kMayBeCut, tokens
    // are known to be in one block.
    template <int kBytes, class Vector, bool kMayBeCut = true>
    NOVACRON_INLINE Vector load_at(int64_t start) const {
      Vector x;
      if (kLanes == 16 && kMayBeCut && far != nullptr) {
        char lanes[kLanes * kBytes];
        memcpy(lanes, near + start, sizeof lanes / 2);
        memcpy(lanes + sizeof lanes / 2, far + start, sizeof lanes / 2);
        memcpy(&x, lanes, sizeof x);
      } else {
        memcpy(&x, near + start + offset * kBytes, sizeof x);
      }
      return x;
    }
  };
  NOVACRON_INLINE Places places_from(int64_t place, int64_t end) const {
    Places places = {block_of(place), nullptr, offset_of(place)};
    if (block_size() < kLanes) {
      const int64_t other = place + block_size() < end ? place + block_size() : place;
      places.far = block_of(other);
    }
    return places;
  }
  NOVACRON_INLINE Floats load_scales(const Places& places, int64_t group) const {
    const int64_t start = scales_start_ + group * block_size() * 2;
    const Halves bits = places.template load_at<2, Halves>(start);
    return (Floats)(__builtin_convertvector(bits, Words) << 16);
  }

 private:
  const char* start_;
  const int64_t* table_;
  const int64_t block_stride_, block_bytes_, block_shift_, scales_start_;
};

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
