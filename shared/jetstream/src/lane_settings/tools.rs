//! What a tool does with settings: read, list, store, change, remove. Everything is checked before it is stored.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use super::{Faults, Key, LaneSettings};
use crate::bucket::{Bucket, Found, Refused, bucket_name};
use crate::{Broker, definitions, lanes, leases, streams};

/// A healthy broker answers in milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Each lost race means that somebody else changed the same entry; a handful in a row is a runaway program.
const RACES_MAX: u32 = 16;

/// Most entries that are listed: more than the broker has consumers for lanes (`max_consumers`).
const LIST_MAX: usize = 20_000;

/// Entries asked for at once.
const LIST_IN_FLIGHT: usize = 16;

/// Why settings are not read or stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket is missing, dangerous, or the broker does not answer.
    #[error(transparent)]
    Bucket(#[from] streams::Error),
    /// They are not valid: not stored; or what stands in the bucket is not.
    #[error("the settings of {key} are refused: {faults}")]
    Refused {
        /// Whose.
        key: String,
        /// Every fault, by field.
        faults: Faults,
    },
    /// The broker does not answer. They may be stored.
    #[error("the settings of {key} are not known to be read or stored: {cause}")]
    Unavailable {
        /// Whose.
        key: String,
        /// The library's words.
        cause: String,
    },
    /// Others kept changing them first. Not stored.
    #[error("the settings of {key} are not stored: {RACES_MAX} others changed them at the same moment")]
    Contended {
        /// Whose.
        key: String,
    },
}

/// Stores settings in place of what stands there, valid or not.
///
/// # Errors
/// See [`Error`].
pub async fn store(broker: &Broker, key: &Key, settings: &LaneSettings) -> Result<(), Error> {
    change(broker, key, |_| Ok(settings.clone())).await.map(drop)
}

/// Changes what stands there, from nothing where nothing does, by compare-and-set: `edit` may be called again when
/// somebody else was first. Answers what is stored.
///
/// # Errors
/// See [`Error`]; an entry that is not valid is refused too: store a whole one in its place.
pub async fn update(
    broker: &Broker,
    key: &Key,
    mut edit: impl FnMut(&mut LaneSettings),
) -> Result<LaneSettings, Error> {
    change(broker, key, |found| {
        let mut settings = read(key, found)?.unwrap_or_default();
        edit(&mut settings);
        Ok(settings)
    })
    .await
}

async fn change(
    broker: &Broker,
    key: &Key,
    mut make: impl FnMut(&Found) -> Result<LaneSettings, Error>,
) -> Result<LaneSettings, Error> {
    let name = key.to_string();
    let unavailable = |cause: String| Error::Unavailable { key: name.clone(), cause };
    let bucket = Bucket::open(broker, definitions::lanes()).await?;
    for race in 0..RACES_MAX {
        let found = bucket.get(&name, TIME_LIMIT).await.map_err(unavailable)?;
        let settings = make(&found)?;
        key.check(&settings).map_err(|faults| Error::Refused { key: name.clone(), faults })?;
        match bucket.put_if(&name, settings.write().into(), found.revision, TIME_LIMIT).await {
            Ok(_) => return Ok(settings),
            Err(Refused::Raced) => leases::pause(race).await,
            Err(Refused::Unavailable(cause)) => return Err(unavailable(cause)),
        }
    }
    Err(Error::Contended { key: name })
}

/// What stands there; none where nothing does.
///
/// # Errors
/// See [`Error`].
pub async fn load(broker: &Broker, key: &Key) -> Result<Option<LaneSettings>, Error> {
    let name = key.to_string();
    let bucket = Bucket::open(broker, definitions::lanes()).await?;
    let found = bucket.get(&name, TIME_LIMIT).await.map_err(|cause| Error::Unavailable { key: name, cause })?;
    read(key, &found)
}

/// Removes an entry: the lane is back to the default. Answers whether there was one.
///
/// # Errors
/// See [`Error`].
pub async fn remove(broker: &Broker, key: &Key) -> Result<bool, Error> {
    let name = key.to_string();
    let unavailable = |cause: String| Error::Unavailable { key: name.clone(), cause };
    let bucket = Bucket::open(broker, definitions::lanes()).await?;
    for race in 0..RACES_MAX {
        let found = bucket.get(&name, TIME_LIMIT).await.map_err(unavailable)?;
        if found.value.is_none() {
            return Ok(false);
        }
        match bucket.delete_if(&name, found.revision, TIME_LIMIT).await {
            Ok(()) => return Ok(true),
            Err(Refused::Raced) => leases::pause(race).await,
            Err(Refused::Unavailable(cause)) => return Err(unavailable(cause)),
        }
    }
    Err(Error::Contended { key: name })
}

/// Every entry, by key: its settings, or what is wrong with it. At most 20,000, in the order of their keys; keys of
/// neither the default nor a lane are left out ([`super::LaneSettingsWatch`] shows them).
///
/// # Errors
/// See [`Error`].
pub async fn list(broker: &Broker) -> Result<Vec<(Key, Result<LaneSettings, Faults>)>, Error> {
    let definition = definitions::lanes();
    let bucket = Bucket::open(broker, definition).await?;
    let prefix = format!("$KV.{}.", bucket_name(definition));
    let subjects = lanes::subjects(broker, &definition.name, &format!("{prefix}>")).await;
    let subjects =
        subjects.map_err(|error| Error::Unavailable { key: "every lane".to_owned(), cause: error.to_string() })?;
    let mut keys: Vec<Key> =
        subjects.iter().filter_map(|(subject, _)| subject.strip_prefix(&prefix)?.parse().ok()).collect();
    keys.sort();
    keys.truncate(LIST_MAX);
    let asked = keys.into_iter().map(async |key| {
        let name = key.to_string();
        let found = bucket.get(&name, TIME_LIMIT).await.map_err(|cause| Error::Unavailable { key: name, cause })?;
        let settings = found.value.map(|value| key.read(&value));
        Ok::<_, Error>(settings.map(|settings| (key, settings)))
    });
    let found: Vec<_> = futures::stream::iter(asked).buffered(LIST_IN_FLIGHT).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

fn read(key: &Key, found: &Found) -> Result<Option<LaneSettings>, Error> {
    let settings = found.value.as_deref().map(|value| key.read(value)).transpose();
    settings.map_err(|faults| Error::Refused { key: key.to_string(), faults })
}
