// What an instruction set provides to api.cpp: one table of functions per level.
#pragma once

#include "api.h"
#include "thread_pool.h"

namespace novacron {

constexpr int64_t kPanel = 64;  // outputs that lie side by side in packed weights
constexpr int64_t kCellBytes = 4;
constexpr int64_t kLargestGroup = 128;
constexpr int64_t kSumBytes = 16;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Peak {
  float value;
  int64_t place;
};

struct Level {
  const char* name;
  void (*linear)(ThreadPool&, const LinearCall&);
  void (*rms_norm)(ThreadPool&, const NormCall&);
  void (*rotate)(ThreadPool&, const RotateCall&);
  void (*gated)(ThreadPool&, const GatedCall&);
  void (*attend)(ThreadPool&, const AttentionCall&);
  void (*map)(ThreadPool&, const MapCall&);
  void (*add_partials)(ThreadPool&, const AddPartialsCall&);
  Peak (*find_peak)(const float* x, int64_t size);
  void (*find_weights)(const float* x, int64_t size, float peak, double temperature,
                       int64_t* weights);
  void (*copy_blocks)(const CopyCall&);
  void (*code_kv)(const KVCodecCall&);
};

extern const Level kPortableLevel;
extern const Level kAvx2Level;
extern const Level kAvx2VnniLevel;
extern const Level kAvx512Level;
extern const Level kAvx512VnniLevel;
extern const Level kAvx512Bf16Level;

}  // namespace novacron
