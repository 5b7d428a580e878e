//! `lanes` and `show`: what waits, who sends it, and what is set. A few questions to the broker, and one a lane.
//!
//! A broker may serve one direction, and have no stream of the other: then there are no such lanes. A stream that is there
//! and not told, for want of a right for instance, is said after the rest.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_jetstream::lane_settings::{self, Faults, Key, LaneSettings};
use fedstream_jetstream::members::Holder;
use fedstream_jetstream::oldest::{self, Oldest};
use fedstream_jetstream::{Broker, definitions, lanes, leases};
use fedstream_lane::{AnyLane, LaneKind};
use fedstream_service::cli::Failure;
use fedstream_wire::stored::header as stored;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::broker;
use crate::settings::{object, value};
use crate::target::Target;
use crate::text::{Table, age, age_s, one_line, say};

/// Heads asked for at once: each is a message that the broker's leader looks up.
const HEADS_IN_FLIGHT: usize = 16;

/// Settings as they stand in the bucket, or what is wrong with them.
type Entry = Result<LaneSettings, Faults>;

/// All that is known of one lane.
struct Row {
    lane: AnyLane,
    depth: u64,
    head: Option<Oldest>,
    /// Who sends it now.
    owner: Option<Holder>,
    /// Its own settings.
    own: Option<Entry>,
    /// Its own settings over the default of its kind.
    in_force: LaneSettings,
}

/// What is known of all.
struct View {
    rows: Vec<Row>,
    settings: BTreeMap<Key, Entry>,
    /// Subjects of the queues that are no lane's, and how much they hold.
    foreign: Vec<(String, u64)>,
}

/// The table of all lanes.
pub async fn list(as_json: bool) -> Result<(), Failure> {
    let broker = broker::connect(&[]).await?;
    let (mut kinds, mut untold) = (Vec::new(), None);
    for kind in LaneKind::ALL {
        match broker::has(&broker, definitions::queue_of_kind(kind)).await {
            Ok(true) => kinds.push(kind),
            Ok(false) => {}
            Err(failure) => untold = untold.or(Some(failure)),
        }
    }
    if kinds.is_empty() {
        untold.map_or(Ok(()), Err)?;
        return broker::need(&broker, definitions::inbox()).await; // says that it is missing
    }
    need_buckets(&broker).await?;
    let view = View::of(&broker, &kinds, None).await?;
    if as_json {
        view.say_json()
    } else {
        view.print()
    }
    match untold {
        Some(failure) => Err(Failure::other(format_args!("{}; what is in it is not shown", failure.line))),
        None => Ok(()),
    }
}

/// One lane, or the default of a kind.
pub async fn show(target: &Target, as_json: bool) -> Result<(), Failure> {
    let Some(lane) = target.lane() else {
        let broker = broker::connect(&[definitions::lanes()]).await?;
        let found = lane_settings::load(&broker, &target.0).await;
        let entry = match found {
            Ok(entry) => entry.map(Ok),
            Err(lane_settings::Error::Refused { faults, .. }) => Some(Err(faults)),
            Err(other) => return Err(broker::of_settings(other)),
        };
        if as_json {
            say(format_args!("{:#}", settings_json(entry.as_ref())));
        } else {
            say(format_args!("{target}: {}", none_if_empty(settings_text(entry.as_ref()))));
        }
        return Ok(());
    };
    let broker = broker::connect(&[definitions::queue_of_kind(lane.kind())]).await?;
    need_buckets(&broker).await?;
    let view = View::of(&broker, &[lane.kind()], Some(&lane)).await?;
    for row in &view.rows {
        if as_json {
            say(format_args!("{:#}", row.json()));
        } else {
            row.print(&target.0.default_of(), &view.settings);
        }
    }
    Ok(())
}

async fn need_buckets(broker: &Broker) -> Result<(), Failure> {
    broker::need(broker, definitions::leases()).await?;
    broker::need(broker, definitions::lanes()).await
}

impl View {
    /// Of this lane, or of every lane of these kinds that holds something, is sent or has settings.
    async fn of(broker: &Broker, kinds: &[LaneKind], only: Option<&AnyLane>) -> Result<Self, Failure> {
        let settings = lane_settings::list(broker).await.map_err(broker::of_settings)?;
        let settings: BTreeMap<Key, Entry> = settings.into_iter().collect();
        let mut wanted: BTreeSet<AnyLane> = settings.keys().filter_map(|key| Target(key.clone()).lane()).collect();
        let (mut depths, mut holders, mut foreign) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for kind in kinds {
            for (subject, messages) in lanes::backlog_of_kind(broker, *kind).await.map_err(Failure::unavailable)? {
                match AnyLane::from_subject(&subject) {
                    Ok(lane) => drop(depths.insert(lane, messages)),
                    Err(_) => foreign.push((subject, messages)),
                }
            }
            holders.extend(leases::holders(broker, *kind).await.map_err(broker::of_leases)?);
        }
        holders.retain(|_, holder| !holder.released);
        wanted.extend(depths.keys().cloned());
        wanted.extend(holders.keys().filter_map(|key| AnyLane::from_subject(&format!("fed.{key}")).ok()));
        match only {
            Some(lane) => wanted = BTreeSet::from([lane.clone()]),
            None => wanted.retain(|lane| kinds.contains(&lane.kind())),
        }
        let rows = wanted.into_iter().map(async |lane| {
            let depth = depths.get(&lane).copied().unwrap_or(0);
            let head = if depth == 0 { None } else { oldest::of_any(broker, &lane).await.map_err(of_oldest)? };
            let owner = holders.get(&lane.key()).cloned();
            let key = Key::from(lane.clone());
            let valid =
                |key: &Key| settings.get(key).and_then(|entry| entry.as_ref().ok()).cloned().unwrap_or_default();
            let own = settings.get(&key).filter(|_| key != key.default_of()).cloned();
            let in_force = valid(&key).over(&valid(&key.default_of()));
            Ok::<_, Failure>(Row { lane, depth, head, owner, own, in_force })
        });
        let rows = futures::stream::iter(rows).buffered(HEADS_IN_FLIGHT).try_collect().await?;
        foreign.sort();
        Ok(Self { rows, settings, foreign })
    }

    fn say_json(&self) {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let of_all = |key| settings_json(self.settings.get(&key));
        let (inbound, outbound) = (of_all(Key::Default), of_all(Key::OutboxDefault));
        say(format_args!("{:#}", json!({ "default": inbound, "outbox": outbound, "lanes": rows })));
    }

    fn print(&self) {
        let mut table = Table::new(&["LANE", "KIND", "DEPTH", "OLDEST", "OWNER", "EPOCH", "PAUSED", "SETTINGS"]);
        for row in &self.rows {
            table.row(vec![
                row.lane.to_string(),
                row.lane.kind().to_string(),
                row.depth.to_string(),
                row.head.as_ref().map(|head| age(head.stored_at)).unwrap_or_default(),
                row.owner.as_ref().map(|owner| one_line(&owner.owner)).unwrap_or_default(),
                row.owner.as_ref().map(|owner| owner.epoch.to_string()).unwrap_or_default(),
                if row.is_paused() { "yes" } else { "no" }.to_owned(),
                settings_text(row.own.as_ref()),
            ]);
        }
        if table.is_empty() {
            say("no lane holds anything, is sent, or has settings");
        } else {
            table.print();
        }
        for key in [Key::Default, Key::OutboxDefault] {
            if let entry @ Some(_) = self.settings.get(&key) {
                say(format_args!("{key}: {}", settings_text(entry)));
            }
        }
        for (subject, messages) in &self.foreign {
            say(format_args!("{} holds {messages} and is no lane's subject", one_line(subject)));
        }
    }
}

impl Row {
    fn is_paused(&self) -> bool {
        self.in_force.paused == Some(true)
    }

    fn json(&self) -> Value {
        let head = self.head.as_ref();
        json!({
            "kind": self.lane.kind().as_str(),
            "lane": self.lane.to_string(),
            "key": self.lane.key(),
            "depth": self.depth,
            "head": head.map(|head| head.seq.0),
            "head_activity": head.and_then(|head| head.headers.get(stored::ACTIVITY_ID)),
            "oldest_age_s": head.map(|head| age_s(head.stored_at)),
            "owner": self.owner.as_ref().map(|owner| &owner.owner),
            "epoch": self.owner.as_ref().map(|owner| owner.epoch.0),
            "paused": self.is_paused(),
            "settings": settings_json(self.own.as_ref()),
            "in_force": object(&self.in_force),
        })
    }

    fn print(&self, default: &Key, settings: &BTreeMap<Key, Entry>) {
        say(format_args!("lane    {} ({})", self.lane, self.lane.key()));
        say(format_args!("depth   {}", self.depth));
        if let Some(head) = &self.head {
            let id = one_line(head.headers.get(stored::ACTIVITY_ID).unwrap_or("(no activity id)"));
            say(format_args!("head    {} since {}: {id}", head.seq, age(head.stored_at)));
        }
        match &self.owner {
            Some(owner) => say(format_args!("owner   {}, epoch {}", one_line(&owner.owner), owner.epoch)),
            None => say("owner   nobody now"),
        }
        say(format_args!("paused  {}", if self.is_paused() { "yes" } else { "no" }));
        for (whose, entry) in [("the lane's own settings", self.own.as_ref()), ("the default", settings.get(default))] {
            if let Some(Err(faults)) = entry {
                say(format_args!("{whose}: not valid, and not in force: {}", one_line(&faults.to_string())));
            }
        }
        let own = self.own.as_ref().and_then(|own| own.as_ref().ok()).map(object).unwrap_or_default();
        let mut table = Table::new(&["SETTING", "IN FORCE", "FROM"]);
        for (field, set) in object(&self.in_force) {
            let from = if own.contains_key(&field) { "the lane".to_owned() } else { default.to_string() };
            table.row(vec![field, value(&set), from]);
        }
        if table.is_empty() {
            say("nothing is set: it is carried as the services are configured");
        } else {
            table.print();
        }
    }
}

fn settings_text(entry: Option<&Entry>) -> String {
    match entry {
        None => String::new(),
        Some(Ok(settings)) => {
            let words =
                object(settings).iter().map(|(field, set)| format!("{field}={}", value(set))).collect::<Vec<_>>();
            words.join(" ")
        }
        Some(Err(faults)) => format!("NOT VALID: {}", one_line(&faults.to_string())),
    }
}

fn settings_json(entry: Option<&Entry>) -> Value {
    match entry {
        None => json!({}),
        Some(Ok(settings)) => Value::Object(object(settings)),
        Some(Err(faults)) => json!({ "not_valid": faults.to_string() }),
    }
}

fn none_if_empty(text: String) -> String {
    if text.is_empty() { "nothing is set".to_owned() } else { text }
}

/// The head of a lane is not told.
pub fn of_oldest(error: oldest::Error) -> Failure {
    Failure::unavailable(error)
}
