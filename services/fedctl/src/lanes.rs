//! `lanes` and `show`: what waits, who sends it, and what is set. Three questions to the broker, and one a lane.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_jetstream::lane_settings::{self, Faults, Key, LaneSettings};
use fedstream_jetstream::members::Holder;
use fedstream_jetstream::oldest::{self, Oldest};
use fedstream_jetstream::{Broker, definitions, lanes, leases};
use fedstream_lane::Lane;
use fedstream_service::cli::Failure;
use fedstream_wire::stored::header as stored;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::broker;
use crate::settings::{object, value};
use crate::target::{NoLane, Target};
use crate::text::{Table, age, age_s, one_line, say};

/// Heads asked for at once: each is a message that the broker's leader looks up.
const HEADS_IN_FLIGHT: usize = 16;

/// All that is known of one lane.
struct Row {
    lane: Lane,
    depth: u64,
    head: Option<Oldest>,
    /// Who sends it now.
    owner: Option<Holder>,
    /// Its own settings, or what is wrong with them.
    own: Option<Result<LaneSettings, Faults>>,
    /// Its own settings over the default.
    in_force: LaneSettings,
}

/// What is known of all.
struct View {
    rows: Vec<Row>,
    default: Option<Result<LaneSettings, Faults>>,
    /// Subjects of FED_INBOX that are no lane's, and how much they hold.
    foreign: Vec<(String, u64)>,
}

/// The table of all lanes.
pub async fn list(as_json: bool) -> Result<(), Failure> {
    let view = View::of(&connect().await?, None).await?;
    if as_json {
        let rows: Vec<Value> = view.rows.iter().map(Row::json).collect();
        say(format_args!("{:#}", json!({ "default": settings_json(view.default.as_ref()), "lanes": rows })));
        return Ok(());
    }
    let mut table = Table::new(&["LANE", "DEPTH", "OLDEST", "OWNER", "EPOCH", "PAUSED", "SETTINGS"]);
    for row in &view.rows {
        table.row(vec![
            row.lane.to_string(),
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
    if view.default.is_some() {
        say(format_args!("default: {}", settings_text(view.default.as_ref())));
    }
    for (subject, messages) in &view.foreign {
        say(format_args!("{} holds {messages} and is no lane's subject", one_line(subject)));
    }
    Ok(())
}

/// One lane, or the default.
pub async fn show(target: &Target, as_json: bool) -> Result<(), Failure> {
    let broker = connect().await?;
    let lane = match &target.0 {
        Key::Default => {
            let default = View::of(&broker, Some(BTreeSet::new())).await?.default;
            if as_json {
                say(format_args!("{:#}", settings_json(default.as_ref())));
            } else {
                say(format_args!("default: {}", none_if_empty(settings_text(default.as_ref()))));
            }
            return Ok(());
        }
        Key::Lane(lane) => lane,
        Key::OutboxDefault | Key::Outbox(_) => return Err(Failure::usage(NoLane)), // no target is read as one
    };
    let view = View::of(&broker, Some(BTreeSet::from([lane.clone()]))).await?;
    for row in &view.rows {
        if as_json {
            say(format_args!("{:#}", row.json()));
        } else {
            row.print(view.default.as_ref());
        }
    }
    Ok(())
}

async fn connect() -> Result<Broker, Failure> {
    broker::connect(&[definitions::inbox(), definitions::leases(), definitions::lanes()]).await
}

impl View {
    /// Of these lanes, or of every lane that holds something, is sent or has settings.
    async fn of(broker: &Broker, only: Option<BTreeSet<Lane>>) -> Result<Self, Failure> {
        let backlog = lanes::backlog(broker).await.map_err(Failure::unavailable)?;
        let holders = leases::holders(broker).await.map_err(broker::of_leases)?;
        let settings = lane_settings::list(broker).await.map_err(broker::of_settings)?;
        let mut settings: BTreeMap<Key, _> = settings.into_iter().collect();
        let default = settings.remove(&Key::Default);

        let mut depths: BTreeMap<Lane, u64> = BTreeMap::new();
        let mut foreign = Vec::new();
        for (subject, messages) in backlog {
            match Lane::from_subject(&subject) {
                Ok(lane) => drop(depths.insert(lane, messages)),
                Err(_) => foreign.push((subject, messages)),
            }
        }
        let held = holders.iter().filter(|(_, holder)| !holder.released);
        let held = held.filter_map(|(key, _)| Lane::from_subject(&format!("fed.{key}")).ok());
        let set = settings.keys().filter_map(|key| if let Key::Lane(lane) = key { Some(lane.clone()) } else { None });
        let all = || depths.keys().cloned().chain(held).chain(set).collect();
        let wanted: BTreeSet<Lane> = only.unwrap_or_else(all);

        let base = default.as_ref().and_then(|entry| entry.as_ref().ok()).cloned().unwrap_or_default();
        let rows = wanted.into_iter().map(async |lane| {
            let depth = depths.get(&lane).copied().unwrap_or(0);
            let head = if depth == 0 { None } else { oldest::of(broker, &lane).await.map_err(of_oldest)? };
            let owner = holders.get(&lane.key()).filter(|holder| !holder.released).cloned();
            let own = settings.get(&Key::Lane(lane.clone())).cloned();
            let in_force = own.as_ref().and_then(|own| own.as_ref().ok()).cloned().unwrap_or_default().over(&base);
            Ok::<_, Failure>(Row { lane, depth, head, owner, own, in_force })
        });
        let rows = futures::stream::iter(rows).buffered(HEADS_IN_FLIGHT).try_collect().await?;
        foreign.sort();
        Ok(Self { rows, default, foreign })
    }
}

impl Row {
    fn is_paused(&self) -> bool {
        self.in_force.paused == Some(true)
    }

    fn json(&self) -> Value {
        let head = self.head.as_ref();
        json!({
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

    fn print(&self, default: Option<&Result<LaneSettings, Faults>>) {
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
        for (whose, entry) in [("the lane's own settings", self.own.as_ref()), ("the default", default)] {
            if let Some(Err(faults)) = entry {
                say(format_args!("{whose}: not valid, and not in force: {}", one_line(&faults.to_string())));
            }
        }
        let own = self.own.as_ref().and_then(|own| own.as_ref().ok()).map(object).unwrap_or_default();
        let mut table = Table::new(&["SETTING", "IN FORCE", "FROM"]);
        for (field, set) in object(&self.in_force) {
            let from = if own.contains_key(&field) { "the lane" } else { "default" };
            table.row(vec![field, value(&set), from.to_owned()]);
        }
        if table.is_empty() {
            say("nothing is set: it is carried as the services are configured");
        } else {
            table.print();
        }
    }
}

fn settings_text(entry: Option<&Result<LaneSettings, Faults>>) -> String {
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

fn settings_json(entry: Option<&Result<LaneSettings, Faults>>) -> Value {
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
