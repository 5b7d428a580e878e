//! The threads that a service runs on: half as many as there are cores, and at least one.
//!
//! What a service does for an activity is a chain: a request, a lane, a broker, an answer. More threads than chains that run
//! at once don't carry it sooner; they hand it to each other, and each time another one is woken, which costs more than
//! what it then does (on two cores, one thread instead of two took a fifth of a service's processor time away). A core carries
//! some ten thousand activities a second; the broker needs the other ones.
//!
//! `TOKIO_WORKER_THREADS`, tokio's own variable, sets another number.

use std::future::Future;
use std::num::NonZero;

use tokio::runtime::Builder;

use crate::cli::Failure;

/// Runs a service's whole work on its threads.
///
/// # Errors
/// The system gives no threads, or the work failed.
pub fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(threads(std::thread::available_parallelism().map_or(1, NonZero::get)));
    }
    builder.build().map_err(|error| Failure::other(format!("no threads: {error}")))?.block_on(work)
}

/// For so many cores.
fn threads(cores: usize) -> usize {
    (cores / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_cores_and_at_least_one() {
        assert_eq!([1, 2, 3, 4, 16].map(threads), [1, 1, 1, 2, 8]);
    }
}
