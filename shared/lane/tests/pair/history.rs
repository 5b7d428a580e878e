//! One history of a lane in virtual time: the queue of what is still to happen, the front door, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_lane::{Epoch, Event, Seq, WindowLimits};

use super::broker::{Ask, Broker, Reply};
use super::crossing::Post;
use super::instance::{Activity, Attempt, Instance, SIGNATURE_WINDOW_MS};
use super::rng::Rng;
use super::sender::Sender;
use super::weather::{Fault, Forecast, MINUTE};
use crate::far::{AtInstance, Far, Line, Request};
use crate::ledger::Ledger;

/// The front door refuses while the lane's oldest activity has waited longer (FED_LANE_AGE_MAX).
const LANE_AGE_MAX_MS: u64 = 10 * MINUTE;
/// The stream's bound of a lane; small, so that it is reached.
const LANE_MAX: usize = 60;
/// How long a batch waits at the far side for an earlier one.
const WAIT_MAX_MS: u64 = 5_000;

/// Something that is still to happen.
#[derive(Debug)]
pub enum What {
    /// The sending instance posts to the front door.
    Offer,
    /// Something goes wrong.
    Fault(usize),
    /// A sender's process starts.
    Start(usize),
    /// The operator lets the lane go on.
    Unpause,
    /// A sender looks whether there is something to do.
    Poll(usize),
    /// It looks whether the lane is free.
    Look(usize),
    /// It renews its lease.
    Renew(usize, Epoch),
    /// Its watch brings the lane's settings.
    Settings(usize),
    /// A request of a sender reaches the broker.
    Asked(usize, Epoch, Ask),
    /// The broker's answer reaches the sender.
    Replied(usize, Epoch, Reply),
    /// A batch reaches the far side.
    Reached(Request),
    /// The far side looks at what waits.
    Work,
    /// The instance is done with an activity.
    Finished(AtInstance, Attempt),
    /// The far side says that it is still there.
    Beat(u64),
    /// The far side learns that a connection is gone.
    FoundOut(usize),
    /// A line reaches a sender; none: a sign of life.
    Heard(usize, Option<Line>),
    /// A sender has waited long enough for a line.
    Silence(usize),
}

/// What the operator set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The lane's limits.
    pub limits: WindowLimits,
    /// Is it paused?
    pub paused: bool,
}

/// See the module.
#[derive(Debug)]
pub struct History {
    pub(super) rng: Rng,
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), What>,
    queued: u64,
    pub(super) forecast: Forecast,
    pub(super) stream: BTreeMap<Seq, Activity>,
    pub(super) activities: BTreeMap<Seq, Activity>,
    pub(super) settings: Settings,
    pub(super) senders: Vec<Sender>,
    pub(super) broker: Broker,
    pub(super) link_down_until: u64,
    pub(super) link_ms: u64,
    pub(super) posts: BTreeMap<usize, Post>,
    pub(super) posts_made: usize,
    pub(super) far: Far,
    pub(super) far_down_until: u64,
    pub(super) far_timers: BTreeSet<u64>,
    pub(super) instance: Instance,
    pub(super) ledger: Ledger,
    /// When the activities came that were parked as expired.
    pub(super) expired: BTreeSet<u64>,
    offers_every: u64,
    max_backlog: usize,
    traced: bool,
}

/// What one history came to.
#[derive(Debug)]
pub struct Report {
    /// How often what happened.
    pub seen: BTreeMap<&'static str, u64>,
    /// Virtual time.
    pub lasted_ms: u64,
    /// Activities accepted.
    pub accepted: usize,
    /// First final outcomes.
    pub outcomes: usize,
    /// Repeats at the instance.
    pub repeats: usize,
    /// Most that the lane held.
    pub max_backlog: usize,
    /// From the end of the last fault until the lane was empty.
    pub recovered_ms: u64,
}

impl History {
    /// The history of a seed, before it begins.
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let forecast = Forecast::draw(&mut rng);
        let memory_items = usize::try_from(rng.spread(2, 200)).unwrap_or(200);
        let (link_ms, answer_ms) = (rng.pick(&[1, 20, 150, 300]), rng.pick(&[5, 50, 500]));
        let many = rng.between(1, 3);
        let senders = (0..many).map(|_| Sender::draw(&mut rng)).collect();
        let offers_every = (forecast.calm_from / rng.between(3, 30)).max(20);
        let settings = Settings { limits: draw_limits(&mut rng), paused: false };
        let mut history = Self {
            rng,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            forecast,
            stream: BTreeMap::new(),
            activities: BTreeMap::new(),
            settings,
            senders,
            broker: Broker::default(),
            link_down_until: 0,
            link_ms,
            posts: BTreeMap::new(),
            posts_made: 0,
            far: Far::new(memory_items, WAIT_MAX_MS),
            far_down_until: 0,
            far_timers: BTreeSet::new(),
            instance: Instance::new(answer_ms),
            ledger: Ledger::default(),
            expired: BTreeSet::new(),
            offers_every,
            max_backlog: 0,
            traced,
        };
        history.say(|history| format!("{:?}, link {link_ms} ms, answers in {answer_ms} ms", history.forecast));
        history.after(0, What::Offer);
        for sender in 0..history.senders.len() {
            history.after(0, What::Start(sender));
        }
        for index in 0..history.forecast.faults.len() {
            history.after(history.forecast.faults[index].0, What::Fault(index));
        }
        history
    }

    /// Lives through it: from the last fault on everything has to come to its end within a bound.
    pub fn run(mut self) -> Report {
        let calm = self.forecast.calm_from;
        loop {
            let Some(((at, _), what)) = self.queue.pop_first() else { panic!("awake: nothing is to happen any more") };
            self.now = self.now.max(at);
            self.happens(what);
            self.max_backlog = self.max_backlog.max(self.stream.len());
            if self.now > calm && self.stream.is_empty() {
                break;
            }
            assert!(self.now <= calm + self.bound(), "awake: the lane still holds {:?}", self.stream.keys());
        }
        self.ledger.nothing_is_missing();
        self.an_outage_costs_no_more_than_was_promised();
        Report {
            lasted_ms: self.now,
            accepted: self.activities.len(),
            outcomes: self.ledger.outcomes,
            repeats: self.ledger.repeats.len(),
            max_backlog: self.max_backlog,
            recovered_ms: self.now - calm,
            seen: self.ledger.seen,
        }
    }

    /// DESIGN section 13: while one waits until it expires, the front door takes others for FED_LANE_AGE_MAX at most.
    fn an_outage_costs_no_more_than_was_promised(&self) {
        for oldest in &self.expired {
            let beside = self.expired.range(*oldest..oldest + SIGNATURE_WINDOW_MS - MINUTE).next_back();
            let all = beside.map_or(0, |youngest| youngest - oldest);
            assert!(all <= LANE_AGE_MAX_MS, "promised: one outage cost what came in {all} ms");
        }
    }

    /// A Retry-After of ten minutes, a lease, the longest backoff; and what each activity may take by being poison or
    /// refused like those before it.
    fn bound(&self) -> u64 {
        20 * MINUTE + self.stream.len() as u64 * 6 * MINUTE
    }

    pub(super) fn after(&mut self, ms: u64, what: What) {
        self.queued += 1;
        self.queue.insert((self.now + ms, self.queued), what);
    }

    /// Is it still the time in which things go wrong?
    pub(super) fn is_stormy(&self) -> bool {
        self.now < self.forecast.calm_from
    }

    pub(super) fn say(&self, text: impl FnOnce(&Self) -> String) {
        if self.traced {
            println!("{:>12.3} s  {}", self.now as f64 / 1000.0, text(self));
        }
    }

    fn happens(&mut self, what: What) {
        if let Some(sender) = self.whose(&what)
            && self.senders[sender].paused_until > self.now
        {
            return self.after(self.senders[sender].paused_until - self.now, what);
        }
        match what {
            What::Offer => self.offer(),
            What::Fault(index) => self.fault(self.forecast.faults[index].1),
            What::Start(sender) => self.start(sender),
            What::Unpause => self.set(|settings| settings.paused = false),
            What::Poll(sender) => self.drive(sender),
            What::Look(sender) => self.look(sender),
            What::Renew(sender, epoch) => self.renew(sender, epoch),
            What::Settings(sender) => self.take_settings(sender),
            What::Asked(sender, epoch, ask) => self.asked(sender, epoch, ask),
            What::Replied(sender, epoch, reply) => self.replied(sender, epoch, reply),
            What::Reached(request) => self.reached(request),
            What::Work => self.work(),
            What::Finished(at, attempt) => self.finished(at, attempt),
            What::Beat(request) => self.beat(request),
            What::FoundOut(post) => self.found_out(post),
            What::Heard(post, line) => self.heard(post, line),
            What::Silence(post) => self.silence(post),
        }
    }

    /// The process in which it happens; one that stands still finds it later.
    fn whose(&self, what: &What) -> Option<usize> {
        match what {
            What::Poll(sender) | What::Look(sender) | What::Renew(sender, _) | What::Settings(sender) => Some(*sender),
            What::Replied(sender, ..) => Some(*sender),
            What::Heard(post, _) | What::Silence(post) => self.posts.get(post).map(|post| post.sender),
            _ => None,
        }
    }

    fn offer(&mut self) {
        if self.now < self.forecast.calm_from + MINUTE {
            let ms = self.rng.spread(1, self.offers_every * 2);
            self.after(ms, What::Offer);
        }
        let oldest = self.stream.values().next().map_or(self.now, |oldest| oldest.received);
        let refused = if self.broker.is_away(self.now) {
            Some("refuses: broker away")
        } else if self.settings.paused {
            Some("refuses: lane paused")
        } else if self.now - oldest > LANE_AGE_MAX_MS {
            Some("refuses: lane too old")
        } else {
            (self.stream.len() >= LANE_MAX).then_some("refuses: lane full")
        };
        if let Some(refused) = refused {
            return self.ledger.saw(refused);
        }
        for _ in 0..self.rng.pick(&[1, 1, 1, 1, 8]) {
            let last = self.activities.last_key_value().map_or(0, |(seq, _)| seq.0);
            let seq = Seq(last + self.rng.pick(&[1, 1, 1, 2, 7]));
            let activity = Activity::draw(&mut self.rng, self.now);
            self.ledger.accepted(seq, activity.bytes);
            self.stream.insert(seq, activity);
            self.activities.insert(seq, activity);
            self.say(|_| format!("front: {seq} accepted, {:?}", activity.fate));
        }
        for sender in 0..self.senders.len() {
            self.after(2, What::Poll(sender));
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.ledger.saw(fault.name());
        self.say(|_| format!("FAULT {fault:?}"));
        let sender = self.owning().unwrap_or(0);
        match fault {
            Fault::Instance(mood, ms) => self.instance.becomes(mood, self.now + ms),
            Fault::Link(ms) => self.link_down_until = self.link_down_until.max(self.now + ms),
            Fault::Broker(ms) => self.broker.leaves_until(self.now + ms),
            Fault::BucketLost => self.ledger.forgotten.extend(self.broker.loses_its_bucket(self.now)),
            Fault::CrashSender(ms) => self.crash(sender, ms),
            Fault::PauseSender(ms) => self.senders[sender].paused_until = self.now + ms,
            Fault::CrashReceiver => self.crash_far(),
            Fault::HandOver => self.tell(sender, Event::Drain(fedstream_lane::Settle::Oldest)),
            Fault::OperatorPauses(ms) => {
                self.set(|settings| settings.paused = true);
                self.after(ms, What::Unpause);
            }
            Fault::OperatorParks => {
                if let Some(seq) = self.stream.keys().next().copied() {
                    self.tell(sender, Event::ParkHead { seq });
                }
            }
            Fault::OperatorSetsLimits => {
                let limits = draw_limits(&mut self.rng);
                self.set(|settings| settings.limits = limits);
                self.tell(sender, Event::Resume);
            }
        }
        self.after(1, What::Poll(sender));
    }

    fn set(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        for sender in 0..self.senders.len() {
            let ms = self.rng.spread(1, 500);
            self.after(ms, What::Settings(sender));
        }
    }
}

fn draw_limits(rng: &mut Rng) -> WindowLimits {
    let items = |rng: &mut Rng, least, most| usize::try_from(rng.spread(least, most)).unwrap_or(1);
    WindowLimits {
        batch_items: items(rng, 1, 20),
        batch_bytes: 200_000,
        posts: items(rng, 1, 4),
        in_flight_items: items(rng, 1, 60),
        in_flight_bytes: items(rng, 50_000, 800_000),
        items: items(rng, 10, 100),
        bytes: 2_000_000,
        linger_ms: 20,
        rate_per_s: std::num::NonZeroU32::new(rng.pick(&[0, 0, 0, 5, 50])),
        trim_interval_ms: 200,
        rejections_max: rng.pick(&[20, 5, 3]),
        poison_attempts: 5,
        poison_after_ms: 2 * MINUTE,
    }
}
