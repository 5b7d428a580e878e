//! Which member a lane belongs to: the one whose hash with the lane is highest (rendezvous hashing, Thaler and
//! Ravishankar 1998). Everybody who knows the same members comes to the same answer without asking anyone, and when one
//! joins or leaves only its own share of the lanes moves.
//!
//! The hash is SHA-256: the same in every version of the program and on every machine. The standard library's promises
//! neither, and two senders that disagree would hand a lane to and fro.

use sha2::{Digest, Sha256};

/// The member that a lane belongs to; none where there is no member.
pub fn owner<'m>(lane_key: &str, members: impl IntoIterator<Item = &'m str>) -> Option<&'m str> {
    // Two equal hashes: the greater name, so that the order of the list does not matter.
    members.into_iter().max_by_key(|member| (weight(lane_key, member), *member))
}

fn weight(lane_key: &str, member: &str) -> u64 {
    let mut hash = Sha256::new();
    for part in [member, lane_key] {
        hash.update((part.len() as u64).to_be_bytes()); // lengths keep ("ab", "c") and ("a", "bc") apart
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const LANES: usize = 1_000;

    fn lanes() -> impl Iterator<Item = String> {
        (0..LANES).map(|n| format!("inbox.home_example.{n}_example"))
    }

    fn shares(members: &[&str]) -> BTreeMap<String, String> {
        lanes()
            .map(|lane| (lane.clone(), owner(&lane, members.iter().copied()).expect("a member").to_owned()))
            .collect()
    }

    #[test]
    fn lanes_are_shared_evenly() {
        for members in
            [&["a", "b"][..], &["a", "b", "c"], &["sender-1", "sender-2", "sender-3", "sender-4", "sender-5"]]
        {
            let shares = shares(members);
            for member in members {
                let share = shares.values().filter(|owner| owner == member).count();
                let even = LANES / members.len();
                assert!(share.abs_diff(even) < even / 4, "{member} of {members:?} has {share}");
            }
        }
    }

    #[test]
    fn a_member_that_joins_takes_its_share_and_moves_nothing_else() {
        let (before, after) = (shares(&["a", "b", "c"]), shares(&["d", "c", "b", "a"]));
        let moved: Vec<_> = before.iter().filter(|(lane, owner)| after[*lane] != **owner).collect();
        assert!(moved.iter().all(|(lane, _)| after[*lane] == "d"));
        assert!(moved.len().abs_diff(LANES / 4) < LANES / 16, "{}", moved.len());
    }

    #[test]
    fn the_answer_is_the_same_in_every_version_of_the_program() {
        // Written down: another hash would make senders of two versions disagree during an upgrade.
        assert_eq!(weight("inbox.aussie_zone.lemmy_world", "sender-a"), 15_088_881_833_752_559_971);
        assert_eq!(owner("inbox.a.b", []), None);
    }
}
