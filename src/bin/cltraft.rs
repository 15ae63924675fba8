//! `cltraft`: see [`raftkv::cltraft`].

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    raftkv::cltraft::main()
}
