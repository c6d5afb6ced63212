// What the status bar says. Knows nothing of VS Code, so that it can be tested without one.

export const states = ['starting', 'awake', 'thinking', 'drowsy', 'sleeping', 'waking', 'error', 'off'] as const;
export type State = (typeof states)[number];

/** The parameters of the server's notification `npllm/status`; `off` is the extension's own. */
export interface Status {
  readonly state: State;
  readonly phase?: string;
  /** Of the whole sleep, 0 to 1. */
  readonly progress?: number;
  /** Until the end of the sleep. */
  readonly secondsLeft?: number;
  readonly message?: string;
  readonly base?: string;
  readonly adapters?: readonly string[];
  /** Records that wait to be carried to the database. */
  readonly backlog?: number;
}

const icons: Record<State, string> = {
  starting: '$(loading~spin)',
  awake: '$(sparkle)',
  thinking: '$(loading~spin)',
  drowsy: '$(coffee)',
  sleeping: '$(moon)',
  waking: '$(loading~spin)',
  error: '$(error)',
  off: '$(circle-slash)',
};

/** A status from what came over the wire; parts of the wrong type are left out. */
export function parse(params: unknown): Status | undefined {
  if (typeof params !== 'object' || params === null) return undefined;
  const given = params as Record<string, unknown>;
  const state = states.find(known => known === given['state']);
  if (state === undefined) return undefined;
  const { phase, progress, secondsLeft, message, base, adapters, backlog } = given;
  return {
    state,
    ...(isText(phase) && { phase }),
    ...(isCount(progress) && { progress: Math.min(progress, 1) }),
    ...(isCount(secondsLeft) && { secondsLeft }),
    ...(isText(message) && { message }),
    ...(isText(base) && { base }),
    ...(Array.isArray(adapters) && { adapters: adapters.filter(isText) }),
    ...(isCount(backlog) && { backlog }),
  };
}

/** The item's text, icon first: `$(moon) npllm sleeping: learning 42 %, 7 min left`. */
export function text(status: Status): string {
  const { state, phase, progress, secondsLeft } = status;
  if (state !== 'sleeping') return `${icons[state]} npllm ${state}`;
  const percent = progress === undefined ? '' : ` ${Math.floor(progress * 100)} %`;
  const left = secondsLeft === undefined ? '' : `, ${duration(secondsLeft)} left`;
  const what = phase === undefined ? '' : `: ${phase}`;
  return `${icons[state]} npllm ${state}${what}${percent}${left}`;
}

/** The tooltip, as plain lines. */
export function details(status: Status): string[] {
  const lines = [`npllm is ${status.state}`];
  if (status.phase !== undefined) lines.push(`Phase: ${status.phase}`);
  if (status.progress !== undefined) lines.push(`Done: ${Math.floor(status.progress * 100)} %`);
  if (status.secondsLeft !== undefined) lines.push(`Left: ${duration(status.secondsLeft)}`);
  if (status.message !== undefined) lines.push(status.message);
  if (status.base !== undefined) lines.push(`Base: ${status.base}`);
  if (status.adapters !== undefined && status.adapters.length > 0) {
    lines.push(`Adapters: ${status.adapters.join(', ')}`);
  } else if (status.base !== undefined) {
    lines.push('Adapters: none yet');
  }
  if (status.backlog !== undefined && status.backlog > 0) {
    lines.push(`Waiting for the database: ${status.backlog}`);
  }
  return lines;
}

/** `40 s`, or minutes from 100 seconds on. */
function duration(seconds: number): string {
  return seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}
