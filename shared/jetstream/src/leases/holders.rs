//! Who holds which lane, asked once: for a tool that looks and goes. What runs follows the bucket ([`crate::Members`]).

use std::collections::BTreeMap;
use std::time::Duration;

use fedstream_lane::{Epoch, INBOX_SUBJECTS};
use futures::{StreamExt, TryStreamExt};

use super::{Entry, Error};
use crate::bucket::{Bucket, bucket_name};
use crate::members::Holder;
use crate::{Broker, definitions, lanes};

/// A healthy broker answers in milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Entries asked for at once.
const IN_FLIGHT: usize = 16;

/// The holder of each inbound lane that has one, or had one last and gave it up, by the lane's key. It never makes the
/// bucket where the broker was connected to with `FED_STREAMS=bind`.
///
/// # Errors
/// The bucket is missing or dangerous, or the broker does not answer.
pub async fn holders(broker: &Broker) -> Result<BTreeMap<String, Holder>, Error> {
    let unavailable = |lane: &str, cause: String| Error::Unavailable { lane: lane.to_owned(), cause };
    let definition = definitions::leases();
    let bucket = Bucket::open(broker, definition).await?;
    let prefix = format!("$KV.{}.", bucket_name(definition));
    let inbound = INBOX_SUBJECTS.trim_start_matches("fed."); // a lane's key is its subject without that
    let subjects = lanes::subjects(broker, &definition.name, &format!("{prefix}{inbound}")).await;
    let subjects = subjects.map_err(|error| unavailable("any", error.to_string()))?;
    let keys = subjects.iter().filter_map(|(subject, _)| subject.strip_prefix(&prefix));
    let asked = keys.map(async |key| {
        let found = bucket.get(key, TIME_LIMIT).await.map_err(|cause| unavailable(key, cause))?;
        // No value: it expired. One that is no lease is nobody's.
        let entry = found.value.and_then(|value| Entry::read(&value).ok());
        let holder = entry.map(|Entry { owner, epoch, released, .. }| Holder { owner, epoch: Epoch(epoch), released });
        Ok::<_, Error>(holder.map(|holder| (key.to_owned(), holder)))
    });
    let found: Vec<_> = futures::stream::iter(asked).buffered(IN_FLIGHT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
