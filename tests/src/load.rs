//! Steady load: senders that go on, each one activity after the other, while something is done to the pipeline.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::pipeline::Pipeline;
use crate::sender::Sender;

/// Senders at work. What they are refused they send again, as Lemmy does.
pub struct Load {
    stop: CancellationToken,
    sending: JoinSet<usize>,
}

impl Load {
    /// One sender for each (source, destination), through the front door.
    #[must_use]
    pub fn on(pipeline: &Pipeline, lanes: &[(&str, &str)]) -> Self {
        Self::of(lanes.iter().map(|(source, destination)| pipeline.sender(source, destination)))
    }

    /// These senders.
    #[must_use]
    pub fn of(senders: impl IntoIterator<Item = Sender>) -> Self {
        let stop = CancellationToken::new();
        let mut sending = JoinSet::new();
        for mut sender in senders {
            let stop = stop.clone();
            sending.spawn(async move { sender.send_until(&stop).await });
        }
        Self { stop, sending }
    }

    /// Each finishes the activity it has begun, however long that takes. Says how many were sent in all.
    ///
    /// # Panics
    /// With the panic of a sender.
    pub async fn stop(self) -> usize {
        self.stop.cancel();
        self.sending.join_all().await.into_iter().sum()
    }
}
