//! The watch over a stream: it notices what happens to it while a service runs.

use std::time::Duration;

use fedstream_jetstream::{Broker, NatsSettings, StreamState, StreamWatch, StreamsMode, streams};
use tokio::sync::watch;

use crate::server::{Server, inbox_need, make_inbox, within};

const OFTEN: Duration = Duration::from_millis(50);

async fn until(
    state: &mut watch::Receiver<StreamState>,
    what: &str,
    is_so: impl FnMut(&StreamState) -> bool,
) -> StreamState {
    within(what, state.wait_for(is_so)).await.expect("the watch runs").clone()
}

#[tokio::test]
async fn a_stream_that_goes_comes_back_as_another_or_becomes_unsafe_is_noticed() {
    let server = Server::start().await;
    let maker = server.connect().await;
    let settings = NatsSettings { streams: StreamsMode::Bind, ..server.settings() };
    let broker = Broker::connect(settings, "test").await.expect("a broker");
    let old = make_inbox(&maker).await;
    let need = inbox_need(1_000, 1 << 30);
    let found = streams::ensure(&broker, &need).await.expect("fit");
    let watch = StreamWatch::start(&broker, need, found, OFTEN);
    let mut state = watch.state();
    assert_eq!(state.borrow().facts(), Some(&old));

    maker.context().delete_stream("FED_INBOX").await.expect("it was there");
    until(&mut state, "missing", |state| *state == StreamState::Missing).await;

    let new = make_inbox(&maker).await;
    assert_ne!(new.created, old.created);
    until(&mut state, "made anew", |state| state.facts() == Some(&new)).await;

    let mut config = maker.context().get_stream("FED_INBOX").await.expect("a stream").cached_info().config.clone();
    config.max_age = Duration::from_secs(60);
    config.duplicate_window = Duration::from_secs(60);
    maker.context().update_stream(&config).await.expect("an update");
    let unsafe_state = until(&mut state, "unsafe", |state| matches!(state, StreamState::Unsafe(_))).await;
    assert!(matches!(unsafe_state, StreamState::Unsafe(reason) if reason.contains("max_age is 60 s")));

    config.max_age = Duration::ZERO;
    maker.context().update_stream(&config).await.expect("an update");
    until(&mut state, "back", |state| state.facts() == Some(&new)).await;
}

#[tokio::test]
async fn in_create_mode_a_missing_stream_is_made_again() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let need = inbox_need(123, 1 << 30);
    let old = streams::ensure(&broker, &need).await.expect("fit");
    let watch = StreamWatch::start(&broker, need, old.clone(), OFTEN);
    broker.context().delete_stream("FED_INBOX").await.expect("it was there");
    let mut state = watch.state();
    let new =
        until(&mut state, "made anew", |state| state.facts().is_some_and(|facts| facts.created != old.created)).await;
    assert_eq!(new.facts().and_then(|facts| facts.messages_per_lane), Some(123));
}

#[tokio::test]
async fn a_broker_that_is_away_makes_the_state_unknown_and_its_return_is_noticed_at_once() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let need = inbox_need(1_000, 1 << 30);
    let facts = streams::ensure(&broker, &need).await.expect("fit");
    let watch = StreamWatch::start(&broker, need, facts.clone(), OFTEN);
    let mut state = watch.state();
    server.kill().await;
    until(&mut state, "unknown", |state| matches!(state, StreamState::Unknown(_))).await;
    server.start_again().await;
    until(&mut state, "back", |state| state.facts() == Some(&facts)).await; // the same stream as before
}
