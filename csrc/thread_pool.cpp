#include "thread_pool.h"

namespace novacron {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the pause between two kernels of one step, much shorter than a time slice.
constexpr auto kSpin = std::chrono::microseconds(50);
// Longer than any operation of a program that runs without help, unless its thread has lost its
// core: then nobody should spin on another.
constexpr auto kSpinAwake = std::chrono::microseconds(400);
constexpr int kChecksPerClock = 32;
constexpr int64_t kMostJobsAlone = 1024;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// True once `ready` is, false if it was not within `patience`.
template <class Condition>
bool spin_until(Condition ready, Clock::duration patience) {
  const auto end = Clock::now() + patience;
  do {
    for (int check = 0; check < kChecksPerClock; ++check) {
      if (ready()) return true;
      relax();
    }
  } while (Clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) {
  for (int index = 1; index < num_threads; ++index) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  job_posted_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t num_tasks, int64_t grain, Task task, void* argument) {
  if (workers_.empty() || num_tasks <= grain) {
    if (num_tasks > 0) task(argument, 0, num_tasks);
    return;
  }
  std::lock_guard<std::mutex> one_at_a_time(one_caller_);
  if (jobs_to_do_alone_ > 0) {
    --jobs_to_do_alone_;
    task(argument, 0, num_tasks);
    return;
  }
  // No worker is inside: the gate was closed and empty when the last job ended.
  num_tasks_ = num_tasks;
  grain_ = grain;
  task_ = task;
  argument_ = argument;
  next_.store(0, std::memory_order_relaxed);
  gate_.store((gate_.load() + kNextJob) | kOpen);
  if (mood_.load() == Mood::kParked) mood_ = Mood::kWatching;
  if (sleeping_.load() > 0) wake_sleepers();
  const auto start = Clock::now();
  claim_tasks();
  gate_.fetch_and(~kOpen);
  const auto end = Clock::now();
  wait_for_workers();
  judge(end - start, Clock::now() - end);
}

void ThreadPool::wake() {
  if (workers_.empty()) return;
  mood_ = Mood::kAwake;
  num_wakes_.fetch_add(1);
  if (sleeping_.load() > 0) wake_sleepers();
}

void ThreadPool::park() { mood_ = Mood::kParked; }

void ThreadPool::wake_sleepers() {
  { std::lock_guard<std::mutex> lock(mutex_); }  // a worker about to sleep is asleep now
  job_posted_.notify_all();
}

// A worker that was taken off its core in the middle of a task holds up the job for a time slice.
// If waiting took longer than working, help was none: do the next jobs alone, more of them each
// time that this happens soon again.
void ThreadPool::judge(Clock::duration working, Clock::duration waiting) {
  if (waiting > working + kSpin) {
    jobs_alone_next_time_ = jobs_alone_next_time_ * 2 < kMostJobsAlone ? jobs_alone_next_time_ * 2
                                                                       : kMostJobsAlone;
    jobs_to_do_alone_ = jobs_alone_next_time_;
  } else if (jobs_alone_next_time_ > kFewestJobsAlone) {
    --jobs_alone_next_time_;
  }
}

void ThreadPool::claim_tasks() {
  for (;;) {
    const int64_t first = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (first >= num_tasks_) return;
    const int64_t last = first + grain_ < num_tasks_ ? first + grain_ : num_tasks_;
    task_(argument_, first, last);
  }
}

void ThreadPool::work() {
  uint64_t seen = 0, seen_wakes = 0;
  while (!stop_) {
    if (!enter(&seen)) {
      wait_for_job(seen, &seen_wakes);
      continue;
    }
    claim_tasks();
    const uint64_t left = gate_.fetch_sub(1) - 1;
    if ((left & (kOpen | kInside)) == 0 && caller_sleeps_.load()) {
      { std::lock_guard<std::mutex> lock(mutex_); }
      all_left_.notify_one();
    }
  }
}

// Joins a job that is open and that this worker has not joined before.
bool ThreadPool::enter(uint64_t* seen) {
  uint64_t gate = gate_.load();
  while ((gate & kOpen) != 0 && gate / kNextJob != *seen) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) {
      *seen = gate / kNextJob;
      return true;
    }
  }
  return false;
}

void ThreadPool::wait_for_job(uint64_t seen, uint64_t* seen_wakes) {
  const auto posted = [this, seen] {
    const uint64_t gate = gate_.load();
    return ((gate & kOpen) != 0 && gate / kNextJob != seen) || stop_.load();
  };
  const auto posted_or_parked = [&] { return posted() || mood_.load() == Mood::kParked; };
  spin_until(posted_or_parked, is_awake() ? kSpinAwake : kSpin);
  if (posted()) return;
  std::unique_lock<std::mutex> lock(mutex_);
  sleeping_.fetch_add(1);
  job_posted_.wait(lock, [&] { return posted() || num_wakes_.load() != *seen_wakes; });
  sleeping_.fetch_sub(1);
  *seen_wakes = num_wakes_.load();
}

void ThreadPool::wait_for_workers() {
  const auto left = [this] { return (gate_.load() & kInside) == 0; };
  if (spin_until(left, kSpin)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  caller_sleeps_ = true;
  all_left_.wait(lock, left);
  caller_sleeps_ = false;
}

}  // namespace novacron
