//! Room for requests: so many at a time, and as many again for those that take long.
//!
//! ```text
//!   enter ─▶ a place ──── no answer for 5 s ────▶ a place for the patient ─▶ answered, or given up
//!     └── the remote is known to fail ───────────▶┘
//! ```
//!
//! A remote that is well answers within a second; one that hangs holds its place for as long as a request may take. Were
//! there one kind of place, remotes that begin to hang together would hold them all, and those that are well would wait
//! behind them. So a place is given on after a few seconds: what waits then waits among its like. Both kinds are bounded,
//! and a request always has one of them.
//!
//! Of who was not heard of yet nobody knows which it is; after a start that is everybody. Such strangers have half of the
//! places at most, so that whoever has answered once does not wait for those that never will.

use tokio::sync::{Semaphore, SemaphorePermit};

/// A request that takes longer is slow: far above what a busy remote takes, far below what one that hangs is given.
const PROMPT: std::time::Duration = std::time::Duration::from_secs(5);

/// All places there are.
#[derive(Debug)]
pub struct Room {
    prompt: Semaphore,
    patient: Semaphore,
    /// Who has one of these may ask for a prompt one.
    strangers: Semaphore,
}

/// One request's place. Given back on drop.
#[derive(Debug)]
pub struct Place<'r> {
    room: &'r Room,
    is_patient: bool,
    permit: Option<SemaphorePermit<'r>>,
    stranger: Option<SemaphorePermit<'r>>,
}

impl Room {
    /// For so many requests at a time, and as many that take long.
    #[must_use]
    pub fn new(at_a_time: usize) -> Self {
        let at_a_time = at_a_time.clamp(1, Semaphore::MAX_PERMITS);
        let [prompt, patient] = [at_a_time, at_a_time].map(Semaphore::new);
        Self { prompt, patient, strangers: Semaphore::new(at_a_time.div_ceil(2)) }
    }

    /// Waits for a place; among the patient for a request to a remote that is known to fail.
    pub async fn enter(&self, is_patient: bool) -> Place<'_> {
        let places = if is_patient { &self.patient } else { &self.prompt };
        Place { room: self, is_patient, permit: places.acquire().await.ok(), stranger: None } // none is ever closed
    }

    /// Waits for a place for a request to a remote that was not heard of yet.
    pub async fn meet(&self) -> Place<'_> {
        let stranger = self.strangers.acquire().await.ok();
        Place { stranger, ..self.enter(false).await }
    }
}

impl Place<'_> {
    /// Makes the request that it is for. One that is slow goes over to the patient as soon as there is room.
    pub async fn during<T>(&mut self, request: impl Future<Output = T>) -> T {
        tokio::pin!(request);
        if !self.is_patient {
            if let Ok(done) = tokio::time::timeout(PROMPT, &mut request).await {
                return done;
            }
            let room = self.room;
            tokio::select! {
                done = &mut request => return done,
                permit = room.patient.acquire() => (self.is_patient, self.permit) = (true, permit.ok()),
            }
            self.stranger = None;
        }
        request.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::join_all;
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    async fn hang(room: &Room) {
        room.enter(false).await.during(sleep(Duration::from_secs(60))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_hang_hold_the_others_up_for_seconds_and_not_for_their_whole_time() {
        let room = Room::new(4);
        let began = Instant::now();
        let well = async {
            sleep(Duration::from_millis(1)).await; // behind them
            room.enter(false).await.during(sleep(Duration::from_millis(100))).await;
            began.elapsed()
        };
        let (waited, _) = tokio::join!(well, join_all((0..4).map(|_| hang(&room))));
        assert!(waited < PROMPT + Duration::from_secs(1), "{waited:?}");
        assert_eq!((room.prompt.available_permits(), room.patient.available_permits()), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_both_kinds_together() {
        let room = Room::new(2);
        let began = Instant::now();
        join_all((0..8).map(|_| hang(&room))).await;
        assert!(began.elapsed() >= Duration::from_secs(120), "four at a time: {:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_leave_half_of_the_places_to_the_others_and_make_room_when_they_are_slow() {
        let room = Room::new(4);
        let (mut first, second) = (room.meet().await, room.meet().await);
        assert!(room.meet().now_or_never().is_none());
        let others = [room.enter(false).now_or_never(), room.enter(false).now_or_never()];
        assert!(others.iter().all(Option::is_some));
        drop(others);
        let slow = first.during(sleep(Duration::from_secs(60)));
        let (next, ()) = tokio::join!(tokio::time::timeout(PROMPT + Duration::from_secs(1), room.meet()), slow);
        assert!(next.is_ok());
        drop((second, next));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_known_to_fail_takes_nothing_from_those_who_are_well() {
        let room = Room::new(1);
        let failing = room.enter(true).await;
        assert!(room.enter(true).now_or_never().is_none());
        assert!(room.enter(false).now_or_never().is_some());
        drop(failing);
    }
}
