// Fixed threads that share out the tasks of one call.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace novacron {

// Tasks are claimed, `grain` at a time, by whichever thread is free: a thread that the system has
// taken off its core delays nobody but the tasks it holds. What a task computes must not depend on
// who runs it. Idle threads watch for work for some microseconds, then sleep; between `wake` and
// `park` they watch all the time, after `park` not at all.
class ThreadPool {
 public:
  using Task = void (*)(void* argument, int64_t first, int64_t last);

  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs all tasks [0, num_tasks) and returns when they are done. One caller at a time.
  void run(int64_t num_tasks, int64_t grain, Task task, void* argument);

  // The caller is about to run many small jobs, close together; and: it is done with them.
  void wake();
  void park();
  bool is_awake() const { return mood_.load(std::memory_order_relaxed) == Mood::kAwake; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kFewestJobsAlone = 8;
  enum class Mood { kWatching, kAwake, kParked };  // how idle threads wait

  // gate_: the number of the job above, then one bit "may be joined", then the workers inside.
  static constexpr uint64_t kOpen = uint64_t{1} << 16;
  static constexpr uint64_t kInside = kOpen - 1;
  static constexpr uint64_t kNextJob = kOpen << 1;

  void work();
  void claim_tasks();
  bool enter(uint64_t* seen);
  void wait_for_job(uint64_t seen, uint64_t* seen_wakes);
  void wake_sleepers();
  void wait_for_workers();
  void judge(Clock::duration working, Clock::duration waiting);

  alignas(64) std::atomic<uint64_t> gate_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  alignas(64) int64_t num_tasks_ = 0;
  int64_t grain_ = 1;
  Task task_ = nullptr;
  void* argument_ = nullptr;

  std::mutex one_caller_;
  int64_t jobs_to_do_alone_ = 0;
  int64_t jobs_alone_next_time_ = kFewestJobsAlone;
  std::mutex mutex_;
  std::condition_variable job_posted_;
  std::condition_variable all_left_;
  std::atomic<Mood> mood_{Mood::kWatching};
  std::atomic<uint64_t> num_wakes_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace novacron
