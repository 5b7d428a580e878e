//! Room for batches: how many are here at once, and how many bytes they have. A batch that finds none is refused
//! before anything of it is begun, and its sender comes back.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many batches are inflated at once. What one of them needs is known only afterwards, so up to this many times
/// the limit of a batch may be held beside the counted bytes.
const INFLATING_MAX: usize = 2;

/// What all batches that are here share. Clones are the same room.
#[derive(Clone, Debug)]
pub struct Room {
    batches: Arc<Semaphore>,
    batches_most: usize,
    bytes: Arc<Semaphore>,
    bytes_most: usize,
    inflating: Arc<Semaphore>,
}

/// No room now.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Room {
    /// Room for so many batches of so many bytes in all.
    #[must_use]
    pub fn new(batches: usize, bytes: usize) -> Self {
        // A semaphore of more permits than it can count would panic; nobody has that much memory either.
        let (batches_most, bytes_most) = (batches.min(Semaphore::MAX_PERMITS), bytes.min(Semaphore::MAX_PERMITS));
        Self {
            batches: Arc::new(Semaphore::new(batches_most)),
            batches_most,
            bytes: Arc::new(Semaphore::new(bytes_most)),
            bytes_most,
            inflating: Arc::new(Semaphore::new(INFLATING_MAX)),
        }
    }

    /// Batches that are here now.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches_most - self.batches.available_permits()
    }

    /// Bytes that they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes_most - self.bytes.available_permits()
    }

    /// A place for one batch, that holds no bytes yet.
    ///
    /// # Errors
    /// Enough batches are here.
    pub fn place(&self) -> Result<Place, Full> {
        let batch = self.batches.clone().try_acquire_owned().map_err(|_| Full)?;
        Ok(Place { room: self.bytes.clone(), bytes: None, _batch: batch })
    }

    /// Waits for a turn at inflating; it lasts for as long as the value is kept, by whoever inflates.
    pub async fn turn_to_inflate(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so there always is a value.
        self.inflating.clone().acquire_owned().await.ok()
    }
}

/// What one batch holds; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    room: Arc<Semaphore>,
    bytes: Option<OwnedSemaphorePermit>,
    _batch: OwnedSemaphorePermit,
}

impl Place {
    /// Holds this many bytes in all from now on.
    ///
    /// # Errors
    /// There isn't that much room; what was held still is.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.bytes.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if let Some(permit) = &mut self.bytes
            && bytes < held
        {
            drop(permit.split(held - bytes));
            return Ok(());
        }
        let more = u32::try_from(bytes - held).map_err(|_| Full)?;
        let permit = self.room.clone().try_acquire_many_owned(more).map_err(|_| Full)?;
        match &mut self.bytes {
            Some(held) => held.merge(permit),
            None => self.bytes = Some(permit),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_batch_holds_is_missing_for_others_until_it_is_gone() {
        let room = Room::new(2, 100);
        let (mut first, mut second) = (room.place().expect("first"), room.place().expect("second"));
        assert_eq!(room.place().err(), Some(Full), "a third batch");
        assert_eq!(first.hold(40), Ok(()));
        assert_eq!(first.hold(90), Ok(()));
        assert_eq!(second.hold(11), Err(Full));
        assert_eq!(first.hold(50), Ok(()), "a body may turn out to need less");
        assert_eq!(second.hold(50), Ok(()));
        assert_eq!((room.batches(), room.bytes()), (2, 100));
        drop((first, second));
        assert_eq!((room.batches(), room.bytes()), (0, 0));
        assert_eq!(room.place().expect("room again").hold(100), Ok(()));
    }

    #[test]
    fn no_limit_is_too_large() {
        let room = Room::new(usize::MAX, usize::MAX);
        assert_eq!(room.place().expect("room").hold(1 << 20), Ok(()));
        assert_eq!(room.place().expect("room").hold(usize::MAX), Err(Full));
    }
}
