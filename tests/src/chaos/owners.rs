//! Which batch-sender owned a lane under which epoch: `the lane is carried` in their logs.
//!
//! An epoch that the batch-receiver met is one of these, and of one batch-sender.

use std::collections::HashMap;

use serde_json::Value;

/// A lane and an epoch of it.
pub type Ownership = (String, u64);

/// By lane and epoch the numbers of the batch-senders that say it was theirs: one, if all is well.
#[must_use]
pub fn read(logs: &[String]) -> HashMap<Ownership, Vec<usize>> {
    let mut owners: HashMap<Ownership, Vec<usize>> = HashMap::new();
    for (number, log) in logs.iter().enumerate() {
        // A process that is killed may leave half a line.
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for line in lines.filter(|line| line["message"] == "the lane is carried") {
            let epoch = &line["epoch"];
            let epoch = epoch.as_u64().or_else(|| epoch.as_str()?.parse().ok());
            if let (Some(lane), Some(epoch)) = (line["lane"].as_str(), epoch) {
                owners.entry((lane.to_owned(), epoch)).or_default().push(number);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_has_its_owner_and_two_of_one_are_seen() {
        let line = |epoch: &str| {
            format!(r#"{{"message":"the lane is carried","lane":"b.test/a.test","epoch":"{epoch}"}}{}"#, "\n")
        };
        let owners = read(&[line("1") + &line("3") + "{\"mess", line("2") + &line("3")]);
        let of = |epoch| owners[&("b.test/a.test".to_owned(), epoch)].clone();
        assert_eq!((of(1), of(2), of(3)), (vec![0], vec![1], vec![0, 1]));
    }
}
