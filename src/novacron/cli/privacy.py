"""From the settings to what tenants have agreed to. Nothing of it is imported for others."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from novacron.accounts.accounts import Accounts
from novacron.cli.accounts import policies_of
from novacron.config.folders import prompt_folder
from novacron.config.load import Settings
from novacron.config.tenants import NOBODY, TenantPolicies
from novacron.coordination.lease import Fence
from novacron.coordination.seat import Duty
from novacron.errors import ConfigError
from novacron.gateway.privacy import Privacy

if TYPE_CHECKING:
    from novacron.gateway.auditing.opened import OpenedAudit
    from novacron.gateway.retention import Purger, Retention, Tenants
    from novacron.prompt_records.log import PromptLog


def open_privacy(
    settings: Settings, accounts: Accounts | None, audit: OpenedAudit | None
) -> Privacy:
    """Raises ConfigError if prompts are to be kept that could not be, or could be read unseen."""
    policies = policies_of(settings, accounts)
    is_wanted = policies.record_prompts or (
        policies.stored is not None  # some may want it later
        and audit is not None
        and bool(settings.engine.cache.encryption_key)
    )
    prompts = _prompts(settings, audit) if is_wanted else None
    retention = _retention(policies, settings, accounts, audit) if policies.retains else None
    return Privacy(
        policies=policies,
        region=settings.engine.model.region,
        prompts=prompts,
        retention=retention,
        purge_interval_s=settings.tenants.purge_interval,
        in_settings=frozenset(settings.tenants.policies.by_name),
        refresh=None if accounts is None else accounts.policies.refresh,
    )


def _prompts(settings: Settings, audit: OpenedAudit | None) -> PromptLog:
    source = settings.engine.cache.encryption_key
    if not source:
        raise ConfigError(
            "tenant_policies has record_prompts, and prompts are kept encrypted or not at all: set "
            "encryption_key."
        )
    if audit is None:
        raise ConfigError(
            "tenant_policies has record_prompts, and whoever reads them must be in the audit log, "
            "which this server has not: set audit_log to a folder."
        )
    from novacron.cli.sealing import KEYS, sealing_at
    from novacron.encryption.key_places import FolderPlace
    from novacron.prompt_records.log import PromptLog

    folder = prompt_folder(settings.server)
    return PromptLog(folder, sealing_at(FolderPlace(folder / KEYS), source))


def _retention(
    policies: TenantPolicies,
    settings: Settings,
    accounts: Accounts | None,
    audit: OpenedAudit | None,
) -> Retention:
    from novacron.audit.purge import purge as purge_audit
    from novacron.gateway.retention import Retention
    from novacron.prompt_records.files import purge as purge_prompts

    folder = prompt_folder(settings.server)
    purgers: dict[str, Purger] = {
        "prompts": lambda tenant, before_s: purge_prompts(folder, tenant, before_s)
    }
    if audit is not None:
        log = audit.folder
        purgers["audit"] = lambda tenant, before_s: sum(
            purge_audit(log, name, before_s).num_purged for name in _names_of(tenant)
        )
    if accounts is None:
        return Retention(policies, purgers)
    return Retention(policies, purgers, _tenants_of(accounts))


def shared_retention(settings: Settings, accounts: Accounts) -> Duty | None:
    """What one server purges for all with the same database. None, if there is nothing."""
    policies = policies_of(settings, accounts)
    if not policies.retains:
        return None
    from novacron.gateway.retention import Retention

    administration, tenants = accounts.administration, _tenants_of(accounts)

    def purge(fence: Fence) -> None:
        purgers = {"usage": partial(administration.purge_usage, fence=fence)}
        Retention(policies, purgers, tenants, rest_s=0).purge(time.time())  # other duties wait

    return Duty(name="retention", every_s=settings.tenants.purge_interval, run=purge)


def _tenants_of(accounts: Accounts) -> Tenants:
    return lambda: [tenant.id for tenant in accounts.administration.tenants.list()]


def _names_of(tenant: str) -> tuple[str, ...]:
    """In records of access nobody is nobody, not a tenant of that name."""
    return ("", NOBODY) if tenant == NOBODY else (tenant,)
