//! `set`, `unset`, `reset`, `pause` and `resume`: changes of one entry of `fed_lanes`, checked before they are stored.
//!
//! A field is changed in the entry's own JSON, so that a setting is known to the command line the day it exists. Nothing is
//! stored unless the whole entry is valid afterwards; each fault is told with its field.
//!
//! An outbound lane has some of them only ([`OUTBOUND`]); the others would do nothing, and are refused.
//!
//! **A new `batch_url` leaves the former one in `batch_url_before`**, where the entry had one: the batch-sender closes the gate
//! there before it begins at the new address, and takes the former one out of the entry when that is done.

use std::str::FromStr;
use std::time::Duration;

use fedstream_jetstream::lane_settings::{self, Error, Key, LaneSettings};
use fedstream_jetstream::{Broker, definitions};
use fedstream_service::cli::Failure;
use serde_json::{Map, Value};

use crate::broker;
use crate::target::{LaneName, Target};
use crate::text::{one_line, say};

/// What of a lane that leads out can be set: it posts to a remote, one activity at a time.
const OUTBOUND: [&str; 5] = ["rate_per_s", "paused", "park", "max_batch", "max_expires_s"];

/// A batch-sender acts on a change of a setting, and sees the last state of an entry: two changes at one moment may be none
/// to it. It sees a change in milliseconds.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// `field=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    field: String,
    value: Value,
}

/// A word without a field or without `=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a setting: write field=value, for example batch_items=50")]
pub struct NoAssignment;

impl FromStr for Assignment {
    type Err = NoAssignment;

    fn from_str(text: &str) -> Result<Self, NoAssignment> {
        let (field, value) = text.split_once('=').ok_or(NoAssignment)?;
        if field.is_empty() {
            return Err(NoAssignment);
        }
        // Numbers and flags as JSON has them; everything else is a text, and refused by its field where it should be none.
        let number = value.parse::<u64>().map(Value::from).or_else(|_| value.parse::<i64>().map(Value::from));
        let value = number.or_else(|_| value.parse::<bool>().map(Value::from)).unwrap_or_else(|_| value.into());
        Ok(Self { field: field.to_owned(), value })
    }
}

/// What a command does to an entry: fields with their new values, `null` for those that go.
#[derive(Debug)]
struct Change(Map<String, Value>);

impl Change {
    /// Refuses fields that don't exist and values that none could have, before anybody is asked.
    fn new(target: &Target, fields: impl IntoIterator<Item = (String, Value)>) -> Result<Self, Failure> {
        let mut change = Map::new();
        for (field, value) in fields {
            let named = one_line(&field);
            let leads_out = target.0.default_of() == Key::OutboxDefault;
            if leads_out && !value.is_null() && !OUTBOUND.contains(&field.as_str()) {
                let there_are = OUTBOUND.join(", ");
                return Err(Failure::usage(format_args!(
                    "{named}: does nothing for what leads out; there are {there_are}"
                )));
            }
            if change.insert(field, value).is_some() {
                return Err(Failure::usage(format_args!("{named} is given twice")));
            }
        }
        let json = Value::Object(change.clone()).to_string();
        match LaneSettings::read(json.as_bytes()) {
            Ok(_) => Ok(Self(change)),
            Err(faults) => Err(Failure::usage(one_line(&format!("the settings of {target} are refused: {faults}")))),
        }
    }

    fn apply(&self, target: &Target, settings: &mut LaneSettings) {
        let mut entry = object(settings);
        entry.extend(self.0.clone());
        // Each part was read as it is: so can the whole be.
        let mut changed: LaneSettings = serde_json::from_value(Value::Object(entry)).unwrap_or_default();
        let is_lanes = target.lane().is_some(); // of the default, each lane knows where it went
        if is_lanes && changed.batch_url != settings.batch_url && !self.0.contains_key("batch_url_before") {
            // One that stands there already is not done: nothing was posted to the address between them.
            changed.batch_url_before = changed.batch_url_before.or_else(|| settings.batch_url.clone());
        }
        *settings = changed;
    }

    async fn store(&self, broker: &Broker, target: &Target) -> Result<(), Failure> {
        refuse_what_stands_there_if_invalid(broker, target).await?;
        let mut before = LaneSettings::default();
        let edit = |settings: &mut LaneSettings| {
            before = settings.clone();
            self.apply(target, settings);
        };
        let after = lane_settings::update(broker, &target.0, edit).await;
        let after = after.map_err(|error| match error {
            Error::Refused { faults, .. } => {
                Failure::usage(format_args!("the settings of {target} are refused: {faults}"))
            }
            other => broker::of_settings(other),
        })?;
        print_difference(target, &before, &after);
        Ok(())
    }
}

/// Changes fields.
pub async fn set(target: &Target, fields: &[Assignment]) -> Result<(), Failure> {
    let fields = fields.iter().map(|Assignment { field, value }| (field.clone(), value.clone()));
    let change = Change::new(target, fields)?;
    change.store(&connect().await?, target).await
}

/// Takes fields away.
pub async fn unset(target: &Target, fields: &[String]) -> Result<(), Failure> {
    let change = Change::new(target, fields.iter().map(|field| (field.clone(), Value::Null)))?;
    change.store(&connect().await?, target).await
}

/// Takes all fields away, but for a former address that may still have to be closed.
pub async fn reset(target: &Target) -> Result<(), Failure> {
    let broker = connect().await?;
    let before = match lane_settings::load(&broker, &target.0).await {
        Ok(before) => before.unwrap_or_default(),
        Err(Error::Refused { .. }) => {
            lane_settings::remove(&broker, &target.0).await.map_err(broker::of_settings)?;
            say(format_args!("{target}: what stood there was not valid, and is gone"));
            return Ok(());
        }
        Err(other) => return Err(broker::of_settings(other)),
    };
    let had_an_address = before.batch_url.is_some() || before.batch_url_before.is_some();
    if target.lane().is_none() || !had_an_address {
        lane_settings::remove(&broker, &target.0).await.map_err(broker::of_settings)?;
        print_difference(target, &before, &LaneSettings::default());
        return Ok(());
    }
    let mut before = before;
    let edit = |settings: &mut LaneSettings| {
        before = settings.clone();
        let former = settings.batch_url_before.take().or_else(|| settings.batch_url.take());
        *settings = LaneSettings { batch_url_before: former, ..LaneSettings::default() };
    };
    let after = lane_settings::update(&broker, &target.0, edit).await.map_err(broker::of_settings)?;
    print_difference(target, &before, &after);
    Ok(())
}

/// Nothing is posted, and the front door answers 503.
pub async fn pause(lane: LaneName) -> Result<(), Failure> {
    let target = Target::try_from(lane).map_err(Failure::usage)?;
    Change::new(&target, [paused(true)])?.store(&connect().await?, &target).await
}

/// The lane goes on, whoever stopped it.
pub async fn resume(lane: LaneName) -> Result<(), Failure> {
    let target = Target::try_from(lane).map_err(Failure::usage)?;
    let broker = connect().await?;
    refuse_what_stands_there_if_invalid(&broker, &target).await?;
    let own = lane_settings::load(&broker, &target.0).await.map_err(broker::of_settings)?;
    if own.is_some_and(|own| own.paused == Some(false)) {
        // It was resumed before, and paused itself since: said once more it must be a change.
        Change::new(&target, [("paused".to_owned(), Value::Null)])?.store(&broker, &target).await?;
        tokio::time::sleep(SEEN_WITHIN).await;
    }
    Change::new(&target, [paused(false)])?.store(&broker, &target).await
}

fn paused(is: bool) -> (String, Value) {
    ("paused".to_owned(), is.into())
}

/// Parks the head of a lane, if it is this one or as soon as it is.
pub async fn park(broker: &Broker, target: &Target, sequence: u64) -> Result<(), Failure> {
    Change::new(target, [("park".to_owned(), sequence.into())])?.store(broker, target).await
}

async fn connect() -> Result<Broker, Failure> {
    broker::connect(&[definitions::lanes()]).await
}

/// An entry that some other program wrote and no service follows: a change of it would be a guess.
async fn refuse_what_stands_there_if_invalid(broker: &Broker, target: &Target) -> Result<(), Failure> {
    match lane_settings::load(broker, &target.0).await {
        Ok(_) => Ok(()),
        Err(Error::Refused { faults, .. }) => Err(Failure::other(format_args!(
            "what stands in fed_lanes for {target} is not valid, and not in force: {}; `fedctl reset {target}` first",
            one_line(&faults.to_string())
        ))),
        Err(other) => Err(broker::of_settings(other)),
    }
}

/// The fields that are set.
pub fn object(settings: &LaneSettings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(), // a struct is always an object
    }
}

/// A value as it would be typed.
pub fn value(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), one_line)
}

fn print_difference(target: &Target, before: &LaneSettings, after: &LaneSettings) {
    let (before, after) = (object(before), object(after));
    let mut changed = false;
    say(format_args!("{target}"));
    let added = after.keys().filter(|field| !before.contains_key(*field));
    for field in before.keys().chain(added) {
        let (was, is) = (before.get(field), after.get(field));
        if was != is {
            let shown = |of: Option<&Value>| of.map_or_else(|| "not set".to_owned(), value);
            say(format_args!("  {field}: {} -> {}", shown(was), shown(is)));
            changed = true;
        }
    }
    if !changed {
        say("  as before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        "home.test/a.test".parse().unwrap()
    }

    fn changed(json: &str, words: &[&str]) -> LaneSettings {
        let assignments = words.iter().map(|word| word.parse::<Assignment>().unwrap());
        let change = Change::new(&target(), assignments.map(|Assignment { field, value }| (field, value))).unwrap();
        let mut settings = LaneSettings::read(json.as_bytes()).unwrap();
        change.apply(&target(), &mut settings);
        settings
    }

    #[test]
    fn a_new_address_leaves_the_former_one_of_the_entry() {
        let before = |json: &str, words: &[&str]| changed(json, words).batch_url_before;
        let new = "batch_url=http://c/";
        assert_eq!(before("{}", &[new]), None, "it had none of its own: the batch-sender knows which");
        assert_eq!(before(r#"{"batch_url":"http://b/"}"#, &[new]).as_deref(), Some("http://b/"));
        assert_eq!(before(r#"{"batch_url":"http://c/"}"#, &[new]), None, "it is the same");
        assert_eq!(before(r#"{"batch_url":"http://b/"}"#, &["paused=true"]), None);
        let moving = r#"{"batch_url":"http://b/","batch_url_before":"http://a/"}"#;
        assert_eq!(before(moving, &[new]).as_deref(), Some("http://a/"), "nothing went to b yet");
        assert_eq!(before(moving, &[new, "batch_url_before=http://b/"]).as_deref(), Some("http://b/"), "said by hand");
    }

    #[test]
    fn an_address_that_is_taken_away_is_a_former_one_too() {
        let unset = Change::new(&target(), [("batch_url".to_owned(), Value::Null)]).unwrap();
        let mut settings = LaneSettings::read(br#"{"batch_url":"http://b/","batch_items":5}"#).unwrap();
        unset.apply(&target(), &mut settings);
        let after = LaneSettings::read(br#"{"batch_url_before":"http://b/","batch_items":5}"#).unwrap();
        assert_eq!(settings, after);
    }

    #[test]
    fn what_does_nothing_for_an_outbound_lane_is_refused_and_can_be_taken_away() {
        for to in ["a.test/3", "outbox"] {
            let to: Target = to.parse().unwrap();
            let set = |field: &str, value: Value| Change::new(&to, [(field.to_owned(), value)]);
            assert!(set("rate_per_s", 5.into()).is_ok() && set("batch_items", Value::Null).is_ok());
            let failure = set("batch_items", 5.into()).unwrap_err();
            assert!(failure.code == 64 && failure.line.starts_with("batch_items: does nothing"), "{}", failure.line);
        }
    }

    #[test]
    fn a_wrong_word_names_its_field_and_why() {
        for (word, said) in [
            ("batch_items=0", "batch_items: is 0, must be 1 to 1000"),
            ("batch_items=-1", "batch_items: invalid value: integer `-1`"),
            ("batch_items=many", "batch_items: invalid type: string \"many\""),
            ("batchitems=5", "batchitems: no such setting; there are batch_items"),
            ("paused=maybe", "paused: invalid type"),
            ("batch_url=ftp://x/", "batch_url: is an address with ftp:"),
        ] {
            let Assignment { field, value } = word.parse().unwrap();
            let failure = Change::new(&target(), [(field, value)]).unwrap_err();
            assert_eq!(failure.code, 64);
            assert!(failure.line.contains(said), "{word}: {}", failure.line);
        }
        assert_eq!("batch_items".parse::<Assignment>(), Err(NoAssignment));
    }
}
