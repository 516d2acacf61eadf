//! On the host every step is a plain call.
use lb_common::{DropReason, V6, Verdict};

use super::packet::MemoryPacket;
use crate::{
    bytes::{
        parse::{self, Extensions, ParseError},
        parsed::ParsedMemory,
    },
    context::{Context, Hook, environment::Environment},
    path::{
        fragments, icmp, icmp_quote::Icmp, masquerade, opening, reply, request, steps::Steps,
        unserved,
    },
    service::{self, frontends},
};

impl Extensions for MemoryPacket {
    fn skip_extensions<M: ParsedMemory<V6>>(&self, memory: &mut M) -> Result<(), ParseError> {
        parse::skip_extensions(self, memory.parsed_mut())
    }
}

impl<F: Icmp> Steps<F> for MemoryPacket {
    fn choose<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        opening::choose(cx)
    }
    fn reserve<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        opening::reserve(&mut cx.scratch, cx.env)
    }
    fn remember<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        opening::remember(&mut cx.scratch, cx.env)
    }
    fn follow<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        frontends::follow(&mut cx.scratch, cx.env)
    }
    fn note_question<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason> {
        unserved::note_question(&mut cx.scratch, cx.env)
    }
    fn forget<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        request::forget(&mut cx.scratch, cx.env)
    }
    fn advance_request<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason> {
        request::advance(cx)
    }
    fn advance_reply<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason> {
        reply::advance(cx)
    }
    fn select_address<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason> {
        service::masquerade::select_address(cx)
    }
    fn find_port<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        masquerade::find_port(cx)
    }
    fn take_port<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        masquerade::take_port(cx)
    }
    fn make_way<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason> {
        masquerade::make_way(cx)
    }
    fn note_fragment<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason> {
        fragments::note(cx)
    }
    fn portless<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>, hook: Hook) -> Verdict {
        icmp::message(cx, hook)
    }
    fn later_fragment<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>, hook: Hook) -> Verdict {
        fragments::later(cx, hook)
    }
}
