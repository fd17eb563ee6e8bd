//! The lab's time: real, faster than real, or moved by hand.
//!
//! Everything that waits or expires asks this clock: the late 401, the agent's ping, lock files, proxied calls, tasks of
//! labs without guests, tickets. With [`Clock::Explicit`] a test moves all of it, and nothing waits for real.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How a lab's time goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clock {
    /// By itself; the factor makes it faster than real time.
    Auto(f64),
    /// Only when [`crate::Lab::advance`] is called.
    Explicit,
}

impl Default for Clock {
    fn default() -> Self {
        Clock::Auto(1.0)
    }
}

/// A running clock.
#[derive(Debug)]
pub struct LabClock {
    clock: Clock,
    started: Instant,
    base: i64,
    skew: AtomicI64,
    moved: watch::Sender<Duration>,
}

impl LabClock {
    /// Starts at the machine's time.
    pub fn new(clock: Clock) -> Self {
        LabClock {
            clock,
            started: Instant::now(),
            base: crate::ids::now(),
            skew: AtomicI64::new(0),
            moved: watch::Sender::new(Duration::ZERO),
        }
    }

    /// Lab time since the start.
    pub fn elapsed(&self) -> Duration {
        match self.clock {
            Clock::Auto(speed) => self.started.elapsed().mul_f64(speed),
            Clock::Explicit => *self.moved.borrow(),
        }
    }

    /// Seconds since 1970 as the cluster's nodes see them.
    pub fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.base.saturating_add(elapsed).saturating_add(self.skew.load(Ordering::SeqCst))
    }

    /// Sets the nodes' clocks wrong by that many seconds.
    pub fn set_skew(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::SeqCst);
    }

    /// Moves an explicit clock; does nothing to one that goes by itself.
    pub fn advance(&self, time: Duration) {
        if self.clock == Clock::Explicit {
            self.moved.send_modify(|moved| *moved += time);
        }
    }

    /// Waits for that much lab time. Cancel-safe.
    pub async fn sleep(&self, time: Duration) {
        match self.clock {
            Clock::Auto(speed) => tokio::time::sleep(time.div_f64(speed.max(1e-6))).await,
            Clock::Explicit => {
                let mut moved = self.moved.subscribe();
                let end = *moved.borrow() + time;
                // The sender lives in `self`, so waiting can't fail.
                let _ = moved.wait_for(|now| *now >= end).await;
            }
        }
    }

    /// What `future` returns, or `None` when that much lab time goes by before.
    pub async fn timeout<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = self.sleep(time) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_explicit_clock_stands_until_it_is_moved() {
        let clock = LabClock::new(Clock::Explicit);
        let start = clock.now();
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.timeout(hour, std::future::ready(1)).await, Some(1));
        let waiting = clock.timeout(hour, std::future::pending::<()>());
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.is_err());
        clock.advance(hour);
        assert_eq!(waiting.await, None);
        clock.set_skew(-60);
        assert_eq!(clock.now(), start + 3540);
    }

    #[tokio::test]
    async fn a_fast_clock_waits_less() {
        let clock = LabClock::new(Clock::Auto(10_000.0));
        let begin = Instant::now();
        clock.sleep(Duration::from_secs(100)).await;
        assert!(begin.elapsed() < Duration::from_secs(50));
        assert!(clock.elapsed() >= Duration::from_secs(100));
    }
}
