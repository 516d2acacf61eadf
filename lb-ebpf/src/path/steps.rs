//! The steps that only few packets take: the first ones of a flow, those with extension headers, fragments, ICMP.
//!
//! Each step takes what it needs from the scratch memory and leaves its results there. So the kernel's programs make it a
//! subprogram of its own, of which the verifier knows nothing but its result: paths before, in and after a step add
//! up, where in one piece they would multiply. On the host a step is a plain call.
use lb_common::{DropReason, Verdict};

use crate::{
    bytes::{packet::Forwarding, parse::Extensions},
    context::{Context, Hook, environment::Environment},
    path::icmp_quote::Icmp,
};

/// A packet that can take the steps of a family.
pub trait Steps<F: Icmp>: Extensions + Forwarding<F> + Sized {
    /// [`crate::path::opening::choose`].
    fn choose<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::opening::reserve`].
    fn reserve<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::opening::remember`].
    fn remember<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::service::frontends::follow`].
    fn follow<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::unserved::note_question`].
    fn note_question<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>)
    -> Result<(), DropReason>;
    /// [`crate::path::request::forget`].
    fn forget<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::request::advance`].
    fn advance_request<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason>;
    /// [`crate::path::reply::advance`].
    fn advance_reply<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>)
    -> Result<(), DropReason>;
    /// [`crate::service::masquerade::select_address`].
    fn select_address<E: Environment<F>>(
        cx: &mut Context<'_, F, Self, E>,
    ) -> Result<(), DropReason>;
    /// [`crate::path::masquerade::find_port`].
    fn find_port<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::masquerade::take_port`].
    fn take_port<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::masquerade::make_way`].
    fn make_way<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>) -> Result<(), DropReason>;
    /// [`crate::path::fragments::note`].
    fn note_fragment<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>)
    -> Result<(), DropReason>;
    /// [`crate::path::icmp::message`].
    fn portless<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>, hook: Hook) -> Verdict;
    /// [`crate::path::fragments::later`].
    fn later_fragment<E: Environment<F>>(cx: &mut Context<'_, F, Self, E>, hook: Hook) -> Verdict;
}
