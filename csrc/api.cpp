#include "api.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "context.h"
#include "kv_block.h"

namespace novacron {
namespace {

constexpr int32_t kAbiVersion = 3;
constexpr int64_t kCellBytes = 4;

// What csrc/build.py could compile and this machine can run, best last.
std::vector<const Level*> usable_levels() {
  std::vector<const Level*> levels = {&kPortableLevel};
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
#if defined(NOVACRON_HAS_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    levels.push_back(&kAvx2Level);
  }
#endif
#if defined(NOVACRON_HAS_AVX512)
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) levels.push_back(&kAvx512Level);
#endif
#if defined(NOVACRON_HAS_AVX512_BF16)
  if (avx512 && __builtin_cpu_supports("avx512bf16")) levels.push_back(&kAvx512Bf16Level);
#endif
  return levels;
}

// Where the cells of a panel's output begin.
int64_t panel_offset(int64_t output, int64_t cells) {
  return (output / kPanel * cells * kPanel + output % kPanel) * kCellBytes;
}

struct PackJob {
  const char* weights;
  char* packed;
  int64_t outputs, inputs, stride, element_bytes, cells;
};

void pack_panels(void* argument, int64_t first, int64_t last) {
  const PackJob& job = *static_cast<const PackJob*>(argument);
  const int64_t row_bytes = job.inputs * job.element_bytes;
  for (int64_t output = first * kPanel; output < last * kPanel; ++output) {
    char* to = job.packed + panel_offset(output, job.cells);
    const char* from = job.weights + output * job.stride * job.element_bytes;
    for (int64_t cell = 0; cell < job.cells; ++cell, to += kPanel * kCellBytes) {
      const int64_t left = row_bytes - cell * kCellBytes;
      uint32_t bytes = 0;
      if (output < job.outputs) {
        memcpy(&bytes, from + cell * kCellBytes, left < kCellBytes ? left : kCellBytes);
      }
      memcpy(to, &bytes, kCellBytes);
    }
  }
}

// A row whose cells of 4 bytes lie `stride` bytes apart; the last may be half of one.
void copy_cells(const char* from, int64_t stride, char* to, int64_t row_bytes) {
  for (int64_t done = 0; done < row_bytes; done += kCellBytes, from += stride) {
    const int64_t left = row_bytes - done;
    memcpy(to + done, from, left < kCellBytes ? left : kCellBytes);
  }
}

void lookup_rows(void* argument, int64_t first, int64_t last) {
  const LookupCall& call = *static_cast<const LookupCall*>(argument);
  const int64_t elements = elements_per_cell(call.type);
  const int64_t row_bytes = call.size * kCellBytes / elements;
  const char* table = static_cast<const char*>(call.table);
  for (int64_t row = first; row < last; ++row) {
    char* to = static_cast<char*>(call.out) + row * row_bytes;
    if (call.is_packed) {
      const char* from = table + panel_offset(call.ids[row], divide_up(call.size, elements));
      copy_cells(from, kPanel * kCellBytes, to, row_bytes);
    } else {
      memcpy(to, table + call.ids[row] * row_bytes, row_bytes);
    }
  }
}

}  // namespace

void lookup(ThreadPool& pool, const LookupCall& call) {
  constexpr int64_t kElementsWorthClaiming = 16 * 1024;
  pool.run(call.rows, divide_up(kElementsWorthClaiming, call.size), lookup_rows,
           const_cast<LookupCall*>(&call));
}

}  // namespace novacron

using novacron::Context;

int32_t novacron_abi_version() { return novacron::kAbiVersion; }

const char* novacron_levels() {
  static const std::string names = [] {
    std::string joined;
    for (const auto* level : novacron::usable_levels()) {
      joined += joined.empty() ? "" : " ";
      joined += level->name;
    }
    return joined;
  }();
  return names.c_str();
}

Context* novacron_open(const char* name, int32_t num_threads) {
  for (const auto* level : novacron::usable_levels()) {
    if (strcmp(level->name, name) == 0) return new Context(*level, num_threads);
  }
  return nullptr;
}

void novacron_close(Context* context) { delete context; }

int64_t novacron_packed_bytes(int32_t type, int64_t outputs, int64_t inputs) {
  const int64_t cells = novacron::divide_up(inputs, novacron::elements_per_cell(type));
  return novacron::divide_up(outputs, novacron::kPanel) * novacron::kPanel * cells *
         novacron::kCellBytes;
}

void novacron_pack(Context* context, int32_t type, const void* weights, int64_t outputs,
                   int64_t inputs, int64_t stride, void* packed) {
  const int64_t elements = novacron::elements_per_cell(type);
  novacron::PackJob job = {static_cast<const char*>(weights),
                           static_cast<char*>(packed),
                           outputs,
                           inputs,
                           stride,
                           novacron::kCellBytes / elements,
                           novacron::divide_up(inputs, elements)};
  context->pool.run(novacron::divide_up(outputs, novacron::kPanel), 1, novacron::pack_panels, &job);
}

void novacron_linear(Context* context, const novacron::LinearCall* call) {
  context->level.linear(context->pool, *call);
}

void novacron_rms_norm(Context* context, const novacron::NormCall* call) {
  context->level.rms_norm(context->pool, *call);
}

void novacron_rotate(Context* context, const novacron::RotateCall* call) {
  context->level.rotate(context->pool, *call);
}

void novacron_gated(Context* context, const novacron::GatedCall* call) {
  context->level.gated(context->pool, *call);
}

int64_t novacron_kv_block_bytes(int32_t kv_format, int64_t block_size, int64_t head_dim) {
  return novacron::kv_block_bytes(kv_format, block_size, head_dim);
}

void novacron_attend(Context* context, const novacron::AttentionCall* call) {
  context->level.attend(context->pool, *call);
}

void novacron_lookup(Context* context, const novacron::LookupCall* call) {
  novacron::lookup(context->pool, *call);
}

void novacron_map(Context* context, const novacron::MapCall* call) {
  context->level.map(context->pool, *call);
}
