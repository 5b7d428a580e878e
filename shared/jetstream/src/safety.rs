//! Which configurations of a stream would lose, reorder or hide activities: a pure function over what the broker says.
//!
//! A service refuses to run on one, and names the field. It never repairs it: whoever set it had a reason, and a
//! change behind his back would be worse than a refusal. The list is that of DESIGN section 2 and of BROKER.md.

use std::fmt;

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};

use crate::definitions::Kind;

/// What 2.15 makes of `max_consumers` -1 or 0: a thousand. Older servers know no such cap; we count on the lower.
const CONSUMERS_WHEN_UNSET: i64 = 1_000;

/// Consumers beyond one a lane: readers that are being replaced, and tools that look.
const CONSUMERS_SPARE: i64 = 16;

/// What the service needs of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// What the stream is for.
    pub kind: Kind,
    /// The subjects that it must hold.
    pub subjects: &'a [&'a str],
    /// How many lanes may be read at once; 0 when this service reads none.
    pub lanes_max: u32,
    /// The largest message, headers included, that must fit; 0 when this service stores none.
    pub message_bytes_max: u64,
}

/// A dangerous field: what it is, what it should be, and what would happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The field's name in JetStream's JSON.
    pub field: &'static str,
    /// What the stream has.
    pub found: String,
    /// What it should have.
    pub wanted: String,
    /// What would happen.
    pub why: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, must be {}: {}", self.field, self.found, self.wanted, self.why)
    }
}

/// Refuses a configuration that the service can't run on safely, naming the first dangerous field.
///
/// # Errors
/// The field, in the words of the broker's own JSON.
pub fn check(config: &Config, need: &Need<'_>) -> Result<(), Fault> {
    keeps_what_it_acks(config)?;
    holds_the_subjects(config, need)?;
    fits_the_messages(config, need)?;
    if need.kind == Kind::Queue {
        loses_nothing_by_itself(config)?;
        serves_every_lane(config, need)?;
    }
    Ok(())
}

/// Whatever a stream is for, an ack must mean: stored.
fn keeps_what_it_acks(config: &Config) -> Result<(), Fault> {
    refuse_if(
        config.storage != StorageType::File,
        "storage",
        "memory",
        "file",
        "a broker restart would lose everything",
    )?;
    refuse_if(config.no_ack, "no_ack", true, false, "the broker would not say whether a message is stored")?;
    refuse_if(config.sealed, "sealed", true, false, "nothing could be stored or trimmed")?;
    refuse_if(config.mirror.is_some(), "mirror", "set", "unset", "nothing can be stored in a mirror")?;
    refuse_if(
        config.persist_mode == Some(PersistenceMode::Async),
        "persist_mode",
        "async",
        "default",
        "messages would be acknowledged before they are written",
    )?;
    refuse_if(
        config.retention != RetentionPolicy::Limits,
        "retention",
        format!("{:?}", config.retention).to_lowercase(),
        "limits",
        "acknowledging or the lack of a consumer would remove messages, and ordered reading is refused",
    )
}

fn holds_the_subjects(config: &Config, need: &Need<'_>) -> Result<(), Fault> {
    for wanted in need.subjects {
        let held = config.subjects.iter().any(|subject| covers(subject, wanted));
        let found = format!("{:?}", config.subjects);
        refuse_if(!held, "subjects", found, wanted, "messages of the others would be stored nowhere")?;
    }
    refuse_if(
        config.subject_transform.is_some(),
        "subject_transform",
        "set",
        "unset",
        "messages would be stored in another lane than theirs",
    )
}

fn fits_the_messages(config: &Config, need: &Need<'_>) -> Result<(), Fault> {
    let largest = u64::try_from(config.max_message_size).unwrap_or(0); // -1 and 0: no limit
    refuse_if(
        largest > 0 && largest < need.message_bytes_max,
        "max_msg_size",
        largest,
        format!("at least {}, or -1", need.message_bytes_max),
        "activities within the body limit would be refused for ever",
    )
}

/// A queue lets go of a message when it is told to, and refuses when it is full.
fn loses_nothing_by_itself(config: &Config) -> Result<(), Fault> {
    refuse_if(
        config.discard != DiscardPolicy::New,
        "discard",
        "old",
        "new",
        "a full stream would drop its oldest activities, which were accepted",
    )?;
    refuse_if(
        config.max_messages_per_subject <= 0,
        "max_msgs_per_subject",
        config.max_messages_per_subject,
        "above 0",
        "one lane could fill the stream for all",
    )?;
    refuse_if(
        !config.discard_new_per_subject,
        "discard_new_per_subject",
        false,
        true,
        "a full lane would drop its oldest activities, which were accepted",
    )?;
    refuse_if(
        !config.max_age.is_zero(),
        "max_age",
        format!("{} s", config.max_age.as_secs_f64()),
        0,
        "activities that wait longer would vanish",
    )?;
    refuse_if(
        config.allow_rollup,
        "allow_rollup_hdrs",
        true,
        false,
        "one message with a header could erase the stream",
    )?;
    refuse_if(
        config.allow_message_ttl,
        "allow_msg_ttl",
        true,
        false,
        "a message with a header could expire before it is delivered",
    )?;
    refuse_if(
        config.deny_purge,
        "deny_purge",
        true,
        false,
        "delivered activities could not be trimmed, and lanes would fill up",
    )
}

/// `max_consumers`: one consumer a lane with a backlog, and some to spare.
fn serves_every_lane(config: &Config, need: &Need<'_>) -> Result<(), Fault> {
    if need.lanes_max == 0 {
        return Ok(());
    }
    let configured = i64::from(config.max_consumers);
    let effective = if configured <= 0 { CONSUMERS_WHEN_UNSET } else { configured };
    let wanted = i64::from(need.lanes_max) + CONSUMERS_SPARE;
    let found =
        if configured <= 0 { format!("{configured} (which means {effective})") } else { configured.to_string() };
    let why = "some lanes could not be read (lower FED_LANES_MAX, or raise it)";
    refuse_if(effective < wanted, "max_consumers", found, format!("at least {wanted}"), why)
}

fn refuse_if(
    dangerous: bool,
    field: &'static str,
    found: impl ToString,
    wanted: impl ToString,
    why: &'static str,
) -> Result<(), Fault> {
    if dangerous { Err(Fault { field, found: found.to_string(), wanted: wanted.to_string(), why }) } else { Ok(()) }
}

/// Whether each subject that matches `wanted` also matches `held`.
fn covers(held: &str, wanted: &str) -> bool {
    let (mut held, mut wanted) = (held.split('.'), wanted.split('.'));
    loop {
        match (held.next(), wanted.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions;
    use serde_json::{Value, json};

    /// The inbox's own definition, with one field changed.
    fn inbox_with(field: &str, value: Value) -> Config {
        let mut config = definitions::inbox().config.clone();
        config[field] = value;
        serde_json::from_value(config).expect("a stream's configuration")
    }

    fn fault_of(config: &Config) -> Option<&'static str> {
        let need =
            Need { kind: Kind::Queue, subjects: &["fed.inbox.>"], lanes_max: 1_000, message_bytes_max: 1_130_496 };
        check(config, &need).err().map(|fault| fault.field)
    }

    #[test]
    fn every_dangerous_field_of_a_queue_is_refused_by_its_name() {
        for (field, value) in [
            ("storage", json!("memory")),
            ("no_ack", json!(true)),
            ("sealed", json!(true)),
            ("mirror", json!({ "name": "OTHER" })),
            ("persist_mode", json!("async")),
            ("retention", json!("workqueue")),
            ("retention", json!("interest")),
            ("subjects", json!(["fed.outbox.>"])),
            ("subject_transform", json!({ "src": ">", "dest": "x.>" })),
            ("max_msg_size", json!(1_048_576)),
            ("discard", json!("old")),
            ("max_msgs_per_subject", json!(-1)),
            ("discard_new_per_subject", json!(false)),
            ("max_age", json!(60_000_000_000_u64)),
            ("allow_rollup_hdrs", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("deny_purge", json!(true)),
            ("max_consumers", json!(1_015)),
        ] {
            assert_eq!(fault_of(&inbox_with(field, value.clone())), Some(field), "{value}");
        }
    }

    #[test]
    fn an_unset_consumer_limit_counts_as_a_thousand() {
        assert_eq!(fault_of(&inbox_with("max_consumers", json!(-1))), Some("max_consumers"));
        assert_eq!(fault_of(&inbox_with("max_consumers", json!(0))), Some("max_consumers"));
        assert_eq!(fault_of(&inbox_with("max_consumers", json!(1_016))), None);
        let need = Need { kind: Kind::Queue, subjects: &[], lanes_max: 984, message_bytes_max: 0 };
        assert_eq!(check(&inbox_with("max_consumers", json!(-1)), &need), Ok(()));
    }

    #[test]
    fn harmless_differences_are_let_pass() {
        for (field, value) in [
            ("subjects", json!(["fed.>"])),
            ("max_msg_size", json!(-1)),
            ("max_msg_size", json!(2_000_000)),
            ("duplicate_window", json!(1_000_000_000)),
            ("allow_direct", json!(false)),
            ("description", json!("ours")),
            ("num_replicas", json!(3)),
        ] {
            assert_eq!(fault_of(&inbox_with(field, value)), None, "{field}");
        }
    }

    #[test]
    fn an_archive_may_discard_old_and_age_but_must_keep_what_it_acks() {
        let archive = |field: &str, value: Value| {
            let mut config = definitions::parked().config.clone();
            config[field] = value;
            let config: Config = serde_json::from_value(config).expect("a stream's configuration");
            let need = Need { kind: Kind::Archive, subjects: &["fed.parked.>"], lanes_max: 0, message_bytes_max: 0 };
            check(&config, &need).err().map(|fault| fault.field)
        };
        assert_eq!(archive("discard", json!("old")), None);
        assert_eq!(archive("storage", json!("memory")), Some("storage"));
        assert_eq!(archive("no_ack", json!(true)), Some("no_ack"));
        assert_eq!(archive("subjects", json!(["other"])), Some("subjects"));
    }

    #[test]
    fn a_fault_is_one_line_that_says_what_would_happen() {
        let need = Need { kind: Kind::Queue, subjects: &[], lanes_max: 0, message_bytes_max: 0 };
        let fault = check(&inbox_with("discard", json!("old")), &need).expect_err("dangerous");
        assert_eq!(
            fault.to_string(),
            "discard is old, must be new: a full stream would drop its oldest activities, which were accepted"
        );
    }

    #[test]
    fn a_subject_covers_what_it_matches_and_no_more() {
        for (held, wanted, covered) in [
            ("fed.inbox.>", "fed.inbox.>", true),
            ("fed.>", "fed.inbox.>", true),
            (">", "fed.inbox.>", true),
            ("fed.*.>", "fed.inbox.>", true),
            ("fed.inbox.*.*", "fed.inbox.>", false),
            ("fed.inbox.*", "fed.inbox.>", false),
            ("fed.inbox.a.>", "fed.inbox.>", false),
            ("fed.inbox", "fed.inbox.>", false),
        ] {
            assert_eq!(covers(held, wanted), covered, "{held} {wanted}");
        }
    }
}
