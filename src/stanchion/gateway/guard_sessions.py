"""The session that a guard knows a client's session by: nobody else's request can name it.

What the guard keeps for a session (values behind tokens) is given back to whoever continues the session, so a
client's plain word for it is not enough: it is bound to the key and the tenant it came with.
"""

from __future__ import annotations

from stanchion.gateway.exchange import Exchange


def guard_session(exchange: Exchange, session: str) -> str:
    """The session as the guard is told it; the plain word where only one person uses the gateway."""
    if not session or exchange.is_single_user:
        return session
    caller, facts = exchange.caller, exchange.facts
    tenant = facts.tenant or caller.tenant
    bound = "".join([f"{len(part)}:{part}" for part in (tenant, caller.key_id, session)])
    return exchange.live.id_keys.key("guard-session", bound)
