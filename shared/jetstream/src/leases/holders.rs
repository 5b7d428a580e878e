//! Who holds which lane, asked once: for a tool that looks and goes. What runs follows the bucket ([`crate::Members`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fedstream_lane::{Epoch, LaneKind};
use futures::{StreamExt, TryStreamExt};

use super::{Entry, Error, session};
use crate::bucket::{Bucket, bucket_name};
use crate::members::Holder;
use crate::{Broker, definitions, lanes};

/// A healthy broker answers in milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Entries asked for at once.
const IN_FLIGHT: usize = 16;

/// The holder of each lane of this kind that has one, or had one last and gave it up, by the lane's key. It never makes the
/// bucket where the broker was connected to with `FED_STREAMS=bind`.
///
/// # Errors
/// The bucket is missing or dangerous, or the broker does not answer.
pub async fn holders(broker: &Broker, kind: LaneKind) -> Result<BTreeMap<String, Holder>, Error> {
    let unavailable = |lane: &str, cause: String| Error::Unavailable { lane: lane.to_owned(), cause };
    let definition = definitions::leases();
    let bucket = Bucket::open(broker, definition).await?;
    let prefix = format!("$KV.{}.", bucket_name(definition));
    let subjects = lanes::subjects(broker, &definition.name, &format!("{prefix}{kind}.>")).await;
    let subjects = subjects.map_err(|error| unavailable("any", error.to_string()))?;
    let keys = subjects.iter().filter_map(|(subject, _)| subject.strip_prefix(&prefix));
    let asked = keys.map(async |key| {
        let found = bucket.get(key, TIME_LIMIT).await.map_err(|cause| unavailable(key, cause))?;
        // No value: it expired. One that is no lease is nobody's.
        let entry = found.value.and_then(|value| Entry::read(&value).ok());
        Ok::<_, Error>(entry.map(|entry| (key.to_owned(), entry)))
    });
    let entries: Vec<_> = futures::stream::iter(asked).buffered(IN_FLIGHT).try_collect().await?;
    let entries: Vec<(String, Entry)> = entries.into_iter().flatten().collect();

    let held = entries.iter().filter(|(_, entry)| entry.session && !entry.released);
    let sessions: BTreeSet<&str> = held.map(|(_, entry)| entry.nonce.as_str()).collect();
    let mut gone = BTreeSet::new();
    for nonce in sessions {
        let found = bucket.get(&session::key(nonce), TIME_LIMIT).await.map_err(|cause| unavailable("any", cause))?;
        if found.value.is_none() {
            gone.insert(nonce.to_owned());
        }
    }
    let holder = |Entry { owner, epoch, released, .. }| Holder { owner, epoch: Epoch(epoch), released };
    let live =
        entries.into_iter().filter(|(_, entry)| entry.released || !entry.session || !gone.contains(&entry.nonce));
    Ok(live.map(|(key, entry)| (key, holder(entry))).collect())
}
