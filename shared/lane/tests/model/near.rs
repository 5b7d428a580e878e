//! The near side: owners, their lease, the stream and FED_PARKED. Each event is handled and followed by everything that
//! the window wants done; what it wants done sets out, and arrives whenever it likes.

use fedstream_lane::{Action, Backoff, End, Epoch, Event, Final, Moment, PostId, SendWindow, Seq, Start, WindowLimits};

use super::bounds::{Bounds, ParkBy};
use super::far::place_of;
use super::state::{Awaited, Content, LATE, Owner, Places, Sent, State};

/// No window wants so much done in one go.
const ACTIONS_MAX: usize = 64;

impl Owner {
    /// What may be waiting for it when it wakes.
    fn might_learn(&self) -> Vec<Event> {
        let mut events = vec![Event::Trimmed { done: true }];
        for awaited in &self.awaited {
            events.push(Event::Ended { post: awaited.post, end: End::Lost, jitter: 0 });
            let next = awaited.items.get(awaited.lines);
            events.extend(next.map(|seq| Event::Outcome { post: awaited.post, seq: *seq, outcome: Final::Delivered }));
        }
        events
    }
}

impl State {
    /// May somebody take the lane? The entry's holder is gone, or its TTL is over: then its own lease ended before.
    pub fn may_be_taken(&self, bounds: &Bounds) -> bool {
        let held = self.owner(self.epoch).is_some_and(|owner| owner.holds);
        !self.stream.is_empty() && (!held || bounds.lease_outlives_entry)
    }

    /// A new owner takes the lane, reads so many activities, and acts.
    pub fn is_taken(&mut self, bounds: &Bounds, reads: usize) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let Some(first) = self.stream.iter().next() else { return };
        let start = Start {
            epoch: self.epoch,
            floor: Seq(bounds.seqs[first] - 1),
            gate: (!bounds.asks_for_gate).then_some(self.life),
            lease_until: Moment(u64::MAX),
        };
        self.owners.push(Owner {
            epoch: self.epoch,
            window: SendWindow::new(start, limits(bounds), Backoff::over_at_once()),
            awaited: vec![],
            parking: Places::default(),
            trimming: None,
            holds: true,
            paused: false,
            told: false,
        });
        for _ in 0..reads {
            self.reads(bounds, self.epoch);
        }
        self.acts(bounds, self.epoch);
    }

    /// The next activity that this owner's reader brings.
    pub fn next_read(&self, bounds: &Bounds, epoch: Epoch) -> Option<usize> {
        let owner = self.owner(epoch)?;
        let next = self.stream.iter().find(|place| bounds.seqs[*place] > owner.window.last_read().0)?;
        owner.window.has_room().then_some(next)
    }

    /// The reader brings one activity.
    pub fn reads(&mut self, bounds: &Bounds, epoch: Epoch) {
        let Some(place) = self.next_read(bounds, epoch) else { return };
        let seq = Seq(bounds.seqs[place]);
        let event = match bounds.parked.filter(|(parked, _)| *parked == place) {
            Some((_, ParkBy::Unreadable)) => Event::ReadUnreadable { seq, bytes: 1 },
            Some((_, ParkBy::Deadline)) => Event::Read { seq, bytes: 1, deadline: Some(LATE) },
            _ => Event::Read { seq, bytes: 1, deadline: None },
        };
        self.tells(epoch, event);
    }

    /// An owner gets to know something, and does what follows.
    pub fn happens(&mut self, bounds: &Bounds, epoch: Epoch, event: Event) {
        self.tells(epoch, event);
        self.acts(bounds, epoch);
    }

    pub fn tells(&mut self, epoch: Epoch, event: Event) {
        let now = self.now();
        if let Some(owner) = self.owner_mut(epoch) {
            owner.window.handle(now, event);
        }
    }

    /// An owner's lease ends on its own clock, while it does nothing. If its very window says that it stops, whatever it
    /// gets to know before it looks, then it is as if it were gone: what it had under way is on its way.
    pub fn lease_ends(&mut self, epoch: Epoch) {
        let now = self.now();
        self.tells(epoch, Event::Lease { until: Moment(0) });
        let Some(owner) = self.owner_mut(epoch) else { return };
        (owner.holds, owner.paused) = (false, true);
        let stops = |event: Option<Event>| {
            let mut window = owner.window.clone();
            event.into_iter().for_each(|event| window.handle(now, event));
            matches!(window.poll(now), Some(Action::Stop(_)))
        };
        if owner.might_learn().into_iter().map(Some).chain([None]).all(stops) {
            self.crashes(epoch);
        }
    }

    /// It goes on.
    pub fn wakes(&mut self, bounds: &Bounds, epoch: Epoch) {
        if let Some(owner) = self.owner_mut(epoch) {
            owner.paused = false;
        }
        self.acts(bounds, epoch);
    }

    /// Its process is gone.
    pub fn crashes(&mut self, epoch: Epoch) {
        self.owners.retain(|owner| owner.epoch != epoch);
    }

    /// An outcome line comes.
    pub fn line_comes(&mut self, bounds: &Bounds, epoch: Epoch, post: PostId, outcome: Final) {
        let Some(owner) = self.owner_mut(epoch) else { return };
        let Some(awaited) = owner.awaited.iter_mut().find(|awaited| awaited.post == post) else { return };
        let seq = awaited.items[awaited.lines];
        awaited.lines += 1;
        self.happens(bounds, epoch, Event::Outcome { post, seq, outcome });
    }

    /// A POST ends, one way or the other.
    pub fn post_ends(&mut self, bounds: &Bounds, epoch: Epoch, post: PostId, end: End) {
        if let Some(owner) = self.owner_mut(epoch) {
            owner.awaited.retain(|awaited| awaited.post != post);
        }
        self.happens(bounds, epoch, Event::Ended { post, end, jitter: 0 });
    }

    /// The broker stores a copy.
    pub fn copy_is_stored(&mut self, place: usize) {
        self.copies.insert(place);
    }

    /// An owner gets to know that its copy is stored.
    pub fn copy_is_acked(&mut self, bounds: &Bounds, epoch: Epoch, place: usize) {
        let mut acked = Places::default();
        acked.insert(place);
        if let Some(owner) = self.owner_mut(epoch) {
            owner.parking.remove(acked);
        }
        self.happens(bounds, epoch, Event::Parked { seq: Seq(bounds.seqs[place]) });
    }

    /// The broker purges.
    pub fn purges(&mut self, upto: usize) {
        self.stream.remove(Places::first(upto + 1));
    }

    /// An owner gets to know how its purge went.
    pub fn purge_is_answered(&mut self, bounds: &Bounds, epoch: Epoch, done: bool) {
        if let Some(owner) = self.owner_mut(epoch) {
            owner.trimming = None;
        }
        self.happens(bounds, epoch, Event::Trimmed { done });
    }

    /// The deadline passes, for everybody.
    pub fn deadline_passes(&mut self, bounds: &Bounds) {
        self.late = true;
        let awake: Vec<Epoch> = self.owners.iter().filter(|owner| !owner.paused).map(|owner| owner.epoch).collect();
        awake.into_iter().for_each(|epoch| self.acts(bounds, epoch));
    }

    /// Does what a window wants done, until it wants nothing.
    fn acts(&mut self, bounds: &Bounds, epoch: Epoch) {
        let now = self.now();
        for _ in 0..ACTIONS_MAX {
            let Some(owner) = self.owner_mut(epoch) else { return };
            match owner.window.poll(now) {
                None => return,
                Some(Action::Stop(_)) => return self.crashes(epoch),
                Some(Action::Post(batch)) => {
                    let (post, gate, items) = (batch.post, batch.gate, batch.items.clone());
                    let content = Content::of(epoch, &batch);
                    owner.awaited.push(Awaited { post, gate, items, lines: 0, content: Some(content.clone()) });
                    self.floor_leaves(bounds, batch.floor);
                    self.is_fresh(bounds, &content);
                    self.sets_out(content);
                }
                Some(Action::Cancel { post }) => self.post_ends(bounds, epoch, post, End::Lost),
                Some(Action::Park { seq, .. }) => {
                    let place = place_of(bounds, seq);
                    owner.parking.insert(place);
                    self.copying.insert(place);
                }
                Some(Action::Trim { upto, .. }) => {
                    let place = place_of(bounds, upto);
                    owner.trimming = Some(place);
                    self.floor_leaves(bounds, upto);
                    self.purging.insert(place);
                }
            }
        }
        self.breaks("bounded");
    }

    fn sets_out(&mut self, content: Content) {
        if self.link.iter().all(|sent| sent.content != content) {
            self.link.push(Sent { content, waits_at: None });
        }
    }

    /// No floor leaves a sender unless each item below is delivered or its copy stored.
    fn floor_leaves(&mut self, bounds: &Bounds, floor: Seq) {
        let below = bounds.seqs.iter().filter(|seq| **seq <= floor.0).count();
        if !self.taken.or(self.copies).contains(Places::first(below)) {
            self.breaks("prefix");
        }
    }

    fn is_fresh(&mut self, bounds: &Bounds, content: &Content) {
        let overdue = bounds.parked.filter(|(_, by)| *by == ParkBy::Deadline && self.late);
        if overdue.is_some_and(|(place, _)| content.items.contains(&Seq(bounds.seqs[place]))) {
            self.breaks("fresh");
        }
    }
}

fn limits(bounds: &Bounds) -> WindowLimits {
    let items = bounds.posts * bounds.batch_items;
    WindowLimits {
        batch_items: bounds.batch_items,
        batch_bytes: bounds.batch_items,
        posts: bounds.posts,
        in_flight_items: items,
        in_flight_bytes: items,
        items: 8,
        bytes: 8,
        linger_ms: 0,
        rate_per_s: None,
        trim_interval_ms: 0,
        rejections_max: 0,
        poison_attempts: 2,
        poison_after_ms: 0,
    }
}
