//! What a service refuses to start on: a wrong setting, a broker that is away or too old, a stream that would lose
//! activities. One plain line on stderr, an exit code that says whose move it is, and nothing bound (issue 2, "what must
//! be seen to work" 6).

mod broker;
mod command_line;
mod compose;
mod deploy;
mod documented;
mod process;
mod settings;
mod streams;
mod users;
