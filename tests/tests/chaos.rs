//! Every part is killed, stopped, cut off or lies for a while, in an order that a seed decides, under a steady load: all
//! lanes move again after each fault, and at the end no promise is broken (issue 3, proof 5).
//!
//! Ten faults here; `make test-faults` runs this with a hundred. A failure prints the line that replays it.

use fedstream_tests::chaos::{self, Options};

/// A run of `make test`: half a minute on an idle machine.
const FAULTS: usize = 10;

/// Each lane has one of them as its owner, and another one when that is gone.
const BATCH_SENDERS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_faults_of_every_part() {
    chaos::run(Options::from_env(FAULTS, BATCH_SENDERS).unwrap()).await;
}
