//! Commands as lines and as RESP arrays: the same, however they are cut into pieces; and what they mean.
//!
//! Input: three lengths of pieces, the stream.

use super::input::{Input, Pieces};
use super::reply::check_reply;
use crate::streams::{Said, TEXT_LIMITS, cut_commands};
use raftkv::kv::{Command, Request};
use raftkv::protocol::Limits;
use raftkv::protocol::resp::{TextStep, next_command, put_array, put_bulk, put_error};
use raftkv::protocol::text::{self, TextCommand};

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let pieces = Pieces::choose(&mut input);
    let stream = input.rest();
    let at_once = cut_commands([stream]);
    assert_eq!(cut_commands(pieces.of(stream)), at_once, "the pieces made a difference");
    for said in at_once {
        match said {
            Said::Command(args) => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                check_command(&args);
            }
            Said::TooLong(error) | Said::Error(error) => check_error(&error),
            Said::CrossProtocol => {}
        }
    }
}

fn check_command(args: &[&[u8]]) {
    check_array(args);
    match text::parse(args, &Limits::default()) {
        TextCommand::Ask { request, .. } => {
            let _ = Limits::default().check(&request);
            if let Request::Write { command } = &request {
                Command::decode(command).expect("a command that was just written");
            }
        }
        TextCommand::Error(error) => check_error(&error),
        _ => {}
    }
}

/// The same words as an array are the same command. A line may have more words than an array.
fn check_array(args: &[&[u8]]) {
    let mut array = Vec::new();
    put_array(&mut array, args.len());
    args.iter().for_each(|arg| put_bulk(&mut array, arg));
    match next_command(&array, &mut Vec::new(), &TEXT_LIMITS) {
        TextStep::Command { args: read, consumed } => {
            assert_eq!((&read[..], consumed), (args, array.len()));
        }
        TextStep::Oversized { .. } => {
            let longest = args.iter().map(|arg| arg.len()).max().unwrap_or(0);
            assert!(
                args.len() > TEXT_LIMITS.arguments_max
                    || longest > TEXT_LIMITS.argument_bytes_max
                    || array.len() > TEXT_LIMITS.command_bytes_max
            );
        }
        step => panic!("{step:?} of {args:?}"),
    }
}

fn check_error(error: &str) {
    let mut reply = Vec::new();
    put_error(&mut reply, error);
    check_reply(&reply);
}
