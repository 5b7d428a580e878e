//! The existing batcher's variables that mean nothing here: whoever moves from it hears what replaces each, instead of
//! wondering why a setting does nothing. Its other names keep their meaning and are in the services' own tables.

/// A name, or the beginning of names, and what to do instead. The first that fits counts.
const FORMER: [(&str, &str); 5] = [
    (
        "RABBITMQ_CHANNEL_ROUTING_KEY",
        "there are no queues to name: each sending instance in inbox-receiver's FED_SOURCES has a lane of its own",
    ),
    ("RABBITMQ_HOSTNAME", "the broker is NATS JetStream: NATS_URL of inbox-receiver and batch-sender"),
    ("RABBITMQ_USERNAME", "the broker is NATS JetStream: NATS_USER of inbox-receiver and batch-sender"),
    ("RABBITMQ_", "the broker is NATS JetStream: the NATS_* variables of inbox-receiver and batch-sender"),
    (
        "INBOX_RECEIVER_MESSAGE_QUEUE_LIMIT",
        "FED_LANE_MESSAGES_MAX of inbox-receiver (default 5000) bounds each lane, and the broker keeps it exactly",
    ),
];

/// The sentence for a variable of the existing batcher that has no meaning any more.
pub(super) fn replaced(name: &str) -> Option<String> {
    let fits = |former: &str| name == former || (former.ends_with('_') && name.starts_with(former));
    let (_, instead) = FORMER.iter().find(|(former, _)| fits(former))?;
    Some(format!("{name} has no meaning any more: {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_former_variable_says_what_replaces_it() {
        let said = |name: &str| replaced(name).unwrap_or_default();
        assert!(said("RABBITMQ_HOSTNAME").contains("NATS_URL"));
        assert!(said("RABBITMQ_CHANNEL_ROUTING_KEY").contains("FED_SOURCES"));
        assert!(said("RABBITMQ_PORT").starts_with("RABBITMQ_PORT has no meaning any more: the broker is NATS"));
        assert!(said("INBOX_RECEIVER_MESSAGE_QUEUE_LIMIT").contains("FED_LANE_MESSAGES_MAX"));
    }

    #[test]
    fn what_still_means_something_is_not_former() {
        for name in ["HTTP_BATCH_SIZE", "RABBITMQ", "INBOX_RECEIVER_MESSAGE_QUEUE_LIMITS", "PATH"] {
            assert_eq!(replaced(name), None, "{name}");
        }
    }
}
