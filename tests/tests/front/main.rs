//! The front door against everything it must refuse, bear or survive: limits, wrong requests, hostile ones, and a broker
//! that is away (issue 2, "what must be seen to work" 2, 3 and 4).

mod age;
mod broker_away;
mod hostile;
mod inbox;
mod lanes;
mod limits;
mod refusals;
mod request;
