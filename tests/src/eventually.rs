//! Waiting for a state: await the condition, with a timeout.
//!
//! The only place in the harness that polls. What a test waits for is often in another process, so there is nothing
//! to be woken by; every other delay in the harness is behaviour that is played (a backoff, a service time, a link).

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Short enough that a test of 10 states loses no more than a tenth of a second.
const POLL: Duration = Duration::from_millis(10);

/// The condition did not come true.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not seen within {within:?}: {what}")]
pub struct TimedOut {
    /// What was waited for, in words.
    pub what: String,
    /// How long.
    pub within: Duration,
}

/// Asks `probe` until it has something, for as long as `within`.
///
/// # Errors
/// [`TimedOut`] with `what` in it. In a test use `.unwrap()` rather than `?`: on a panic the services show their logs.
pub async fn eventually<T>(
    what: impl fmt::Display,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(TimedOut { what: what.to_string(), within });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `condition` is true, for as long as `within`.
///
/// # Errors
/// As [`eventually`].
pub async fn becomes_true(
    what: impl fmt::Display,
    within: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), TimedOut> {
    eventually(what, within, async || condition().then_some(())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        becomes_true("three", Duration::from_secs(5), || {
            asked += 1;
            asked == 3
        })
        .await
        .unwrap();
        assert_eq!(asked, 3);
    }

    #[tokio::test]
    async fn a_condition_that_stays_false_is_named() {
        let error = becomes_true("the moon", Duration::ZERO, || false).await.unwrap_err();
        assert_eq!(error.to_string(), "not seen within 0ns: the moon");
    }
}
