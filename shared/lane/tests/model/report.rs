//! Runs a model and says how large it was.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::{Bounds, Lane};

/// As many as the machines that CI runs on have cores.
const THREADS: usize = 2;

/// Explores until it is through or an invariant breaks; gives the first ones that did, each with the steps to it.
pub fn explores(name: &str, bounds: Bounds) -> Vec<(&'static str, Vec<String>)> {
    let started = Instant::now();
    let checker = Lane(bounds).checker().threads(THREADS).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, total, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("model {name}: {unique} states ({total} with repeats), depth {depth}, {:.1?}", started.elapsed());
    let broken = checker.discoveries().into_iter();
    broken.map(|(name, path)| (name, path.into_actions().iter().map(|step| format!("{step:?}")).collect())).collect()
}

/// Explores all of it: no invariant breaks in any state.
///
/// # Panics
/// On an invariant that breaks, with the way there.
pub fn holds(name: &str, bounds: Bounds) {
    if let Some((invariant, steps)) = explores(name, bounds).first() {
        panic!("{invariant}: broken by\n  {}", steps.join("\n  "));
    }
}
