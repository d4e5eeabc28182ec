#include "api.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "collectives.h"
#include "context.h"
#include "experts.h"
#include "kv_block.h"
#include "packing.h"
#include "rank_group.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace novacron {
namespace {

constexpr int32_t kAbiVersion = 15;

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Not every compiler that has the instructions knows their name in __builtin_cpu_supports.
bool has_avx2_vnni() {
  unsigned eax = 0, ebx, ecx, edx;
  __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx);
  return has_avx2() && (eax >> 4 & 1) != 0;
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
#endif

// What csrc/build.py could compile and this machine can run, best last.
std::vector<const Level*> usable_levels() {
  std::vector<const Level*> levels = {&kPortableLevel};
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
#if defined(NOVACRON_HAS_AVX2)
  if (has_avx2()) levels.push_back(&kAvx2Level);
#endif
#if defined(NOVACRON_HAS_AVX2_VNNI)
  if (has_avx2_vnni()) levels.push_back(&kAvx2VnniLevel);
#endif
#if defined(NOVACRON_HAS_AVX512)
  if (has_avx512()) levels.push_back(&kAvx512Level);
#endif
#if defined(NOVACRON_HAS_AVX512_VNNI)
  if (has_avx512_vnni()) levels.push_back(&kAvx512VnniLevel);
#endif
#if defined(NOVACRON_HAS_AVX512_BF16)
  if (has_avx512_vnni() && __builtin_cpu_supports("avx512bf16")) {
    levels.push_back(&kAvx512Bf16Level);
  }
#endif
  return levels;
}

}  // namespace
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

int64_t novacron_packed_bytes(int32_t weight_type, int32_t group, int64_t outputs,
                              int64_t inputs) {
  return novacron::packed_bytes(weight_type, group, outputs, inputs);
}

void novacron_pack(Context* context, const novacron::PackCall* call) {
  novacron::pack(context->pool, *call);
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

int32_t novacron_mix_experts(Context* context, const novacron::ExpertsCall* call) {
  return novacron::mix_experts(*context, *call) ? 0 : 1;
}

int32_t novacron_add_partials(Context* context, const novacron::AddPartialsCall* call) {
  return novacron::add_partials(*context, *call) ? 0 : 1;
}

int32_t novacron_meet(Context* context, const novacron::MeetCall* call) {
  return novacron::meet(*context, *call) ? 0 : 1;
}

int64_t novacron_group_bytes(int32_t size) { return novacron::RankGroup::num_bytes(size); }

novacron::RankGroup* novacron_join(void* memory, int32_t rank, int32_t size, double patience_s) {
  return new novacron::RankGroup(memory, rank, size, patience_s);
}

void novacron_leave(novacron::RankGroup* group) { delete group; }

void novacron_give_up(novacron::RankGroup* group) { group->give_up(); }

void novacron_begin_anew(novacron::RankGroup* group) { group->begin_anew(); }

void novacron_reset(novacron::RankGroup* group) { group->reset(); }

void novacron_traffic(const novacron::RankGroup* group, int32_t rank, novacron::Traffic* traffic) {
  *traffic = group->traffic(rank);
}

int32_t novacron_loss(const novacron::RankGroup* group, int32_t* rank) {
  *rank = group->lost_rank();
  return group->loss();
}

void novacron_copy_blocks(Context* context, const novacron::CopyCall* call) {
  context->level.copy_blocks(*call);
}

void novacron_code_kv(Context* context, const novacron::KVCodecCall* call) {
  context->level.code_kv(*call);
}
