// Online softmaxes (2205.14135) of several queries, and how two of a query become one.
#pragma once

#include <cmath>

#include "simd.h"

namespace novacron {
namespace NOVACRON_LEVEL {
namespace {

// What queries know of the keys they have seen, as floats: for each query the weighted sum of
// values, the highest score, and the sum of weights relative to it.
class Softmaxes {
 public:
  Softmaxes(float* data, int64_t padded_dim) : data_(data), stride_(floats_for(1, padded_dim)) {}
  static int64_t floats_for(int64_t queries, int64_t padded_dim) {
    return queries * (padded_dim + kLanes);
  }
  float* sums(int64_t query) const { return data_ + query * stride_; }
  float& maximum(int64_t query) const { return data_[(query + 1) * stride_ - 2]; }
  float& weight(int64_t query) const { return data_[(query + 1) * stride_ - 1]; }

  void clear(int64_t queries) const {
    memset(data_, 0, queries * stride_ * sizeof(float));
    for (int64_t query = 0; query < queries; ++query) maximum(query) = -INFINITY;
  }
  // Adds what was seen in the next segment.
  void fold(const Softmaxes& next, int64_t queries) const {
    for (int64_t query = 0; query < queries; ++query) {
      if (next.weight(query) == 0.0f) continue;  // nothing of it was visible
      const float highest = maximum(query) > next.maximum(query) ? maximum(query)
                                                                 : next.maximum(query);
      const Floats mine = exponential(broadcast(maximum(query) - highest));
      const Floats its = exponential(broadcast(next.maximum(query) - highest));
      for (int64_t dim = 0; dim + kLanes < stride_; dim += kLanes) {
        const Floats added = load(next.sums(query) + dim) * its;
        store(sums(query) + dim, load(sums(query) + dim) * mine + added);
      }
      weight(query) = weight(query) * mine[0] + next.weight(query) * its[0];
      maximum(query) = highest;
    }
  }

 private:
  float* data_;
  int64_t stride_;
};

}  // namespace
}  // namespace NOVACRON_LEVEL
}  // namespace novacron
