//! Counts verdicts, and shows a sample of them.
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::warn;
use lb_common::{Counter, DropReason, Event, Refusal, RefusalKind, Verdict};
use lb_ebpf::{
    bytes::{
        headers::{IpHeader as _, TcpFlags, Wire},
        parsed::Parsed,
    },
    path::pipeline::Observer,
};

use super::{
    environment::{count, now},
    maps::{EVENT_TIMES, EVENTS, REFUSALS, config},
};

/// A half rewritten packet should not exist: of so many on a CPU one is logged.
const WARN_SAMPLE: u64 = 1024;

/// Reports on packets of one device.
pub struct Reporter {
    pub interface: u32,
    pub context: TcContext,
}

impl Observer for Reporter {
    /// Counts a verdict and, once in a while, writes an event. Nothing is done for packets that are not ours.
    #[inline(always)]
    fn observe<F: Wire>(&mut self, parsed: &Parsed<F>, verdict: Verdict) {
        let Some(counter) = verdict.counter() else {
            return;
        };
        let before = count(counter);
        let sample = u64::from(config!(event_sample));
        if sample != 0
            && (before & (sample - 1) == 0
                || matches!(verdict, Verdict::Drop(_)) && is_first_of_second(counter))
        {
            write_event(parsed, counter as u32, self.interface);
        }
        // Nobody answers a reset, and SCTP has none that a stranger could send.
        let takes_no_reset = parsed.tcp_flags.has(TcpFlags::RST) || parsed.is_sctp();
        if let Verdict::Drop(reason) = verdict
            && let Some(kind) = reason.refusal()
            && !(kind == RefusalKind::Reset && takes_no_reset)
        {
            ask_to_refuse(&self.context, parsed, kind as u8);
        }
        if verdict == Verdict::Drop(DropReason::HalfRewritten) && before.is_multiple_of(WARN_SAMPLE)
        {
            warn_half_rewritten(&self.context, self.interface);
        }
    }
}

/// Whether this CPU has not said so of a counter for a second: who looks for what becomes of his few packets finds it.
#[inline(always)]
fn is_first_of_second(counter: Counter) -> bool {
    let Some(last) = EVENT_TIMES.get_ptr_mut(counter as u32) else {
        return false;
    };
    let now = now();
    // SAFETY: this CPU's own value; a program is not interrupted by another of the same kind on its CPU.
    unsafe {
        let is_first = u64::from(now.jiffies).wrapping_sub(*last) >= u64::from(now.per_second);
        if is_first {
            *last = u64::from(now.jiffies);
        }
        is_first
    }
}

#[inline(never)]
fn warn_half_rewritten(context: &TcContext, interface: u32) {
    warn!(
        context,
        "a packet on interface {} could not be rewritten to its end and was dropped", interface
    );
}

/// A full buffer loses the request: the sender tries again.
#[inline(never)]
fn ask_to_refuse<F: Wire>(context: &TcContext, parsed: &Parsed<F>, kind: u8) {
    let (l3_offset, l4_offset) = (parsed.l3_offset(), parsed.l4_offset());
    let Ok(start) = context.load::<[u64; 1]>(l4_offset) else {
        return;
    };
    let rest = if parsed.is_udp() {
        [0]
    } else {
        context.load::<[u64; 1]>(l4_offset + 8).unwrap_or_default()
    };
    let Ok(ip) = context.load::<F::IpHeader>(l3_offset) else {
        return;
    };
    let Some(mut record) = REFUSALS.reserve::<Refusal>(0) else {
        return;
    };
    let tuple = &parsed.tuple;
    record.write(Refusal {
        source: wide(tuple.source.as_ref()),
        destination: wide(tuple.destination.as_ref()),
        transport: bytemuck::must_cast([start[0], rest[0]]),
        length: (l3_offset + ip.end()).saturating_sub(l4_offset) as u32,
        version: F::VERSION,
        protocol: tuple.protocol_number(),
        kind,
        spare: 0,
    });
    record.submit(0);
}

/// A full buffer loses the sample: it is one.
#[inline(never)]
fn write_event<F: Wire>(parsed: &Parsed<F>, counter: u32, interface: u32) {
    let Some(mut record) = EVENTS.reserve::<Event>(0) else {
        return;
    };
    let tuple = &parsed.tuple;
    record.write(Event {
        source: wide(tuple.source.as_ref()),
        destination: wide(tuple.destination.as_ref()),
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        version: F::VERSION,
        protocol: tuple.protocol_number(),
        spare: 0,
        counter,
        interface,
    });
    record.submit(0);
}

/// An address in the room of the longer one.
#[inline(always)]
fn wide(words: &[u32]) -> [u32; 4] {
    let mut wide = [0; 4];
    for (to, from) in wide.iter_mut().zip(words) {
        *to = *from;
    }
    wide
}
