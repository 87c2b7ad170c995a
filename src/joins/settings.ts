// The settings of an agent, completed and checked with what every protocol knows of its own.
import { codeOf, messageOf } from "../base/error.ts";
import { defaultSettings, type Settings } from "../contracts/settings.ts";
import { checkMagicRanges } from "../lookup/connect/magic.ts";
import { protocolFaults, protocols } from "../protocols/index.ts";
import { checkNames, checkSettings } from "../trilith/fault.ts";
import { WILDCARD } from "../trilith/self.ts";
import { mustFitSettings, toldOf } from "../trilith/settings-rules.ts";

/** The protocols that there are. */
export const PROTOCOL_NAMES: readonly string[] = protocols.map(({ name }) => name);

/** What is not told is as usual. @throws TrilithError `invalid` with what is wrong and what would be right */
export function settingsOf(given: Partial<Settings> = {}): Settings {
  mustFitSettings(given);
  const { bindAddress } = given;
  // Whoever names the host's own address means it for others, too, as with Consul's -bind.
  const own = bindAddress === undefined || WILDCARD.test(bindAddress) ? {} : { advertiseAddress: bindAddress };
  const guard = { ...defaultSettings.guard, ...toldOf(given.guard ?? {}) };
  const settings: Settings = { ...defaultSettings, ...own, ...toldOf(given), guard };
  checkSettings(settings, PROTOCOL_NAMES);
  return settings;
}

/**
 * What is wrong in each of the settings that a file tells, as an agent's start would say it; what only fits together with flags and other files
 * is not looked at.
 */
export async function settingsFaults(told: Partial<Settings>): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const check of [() => checkNames(told), () => checkMagicRanges(told.magic ?? {})])
    try {
      check();
    } catch (error) {
      if (codeOf(error) !== "invalid") throw error;
      faults.push(messageOf(error));
    }
  return [...faults, ...(await protocolFaults(told.protocols ?? {}))];
}
