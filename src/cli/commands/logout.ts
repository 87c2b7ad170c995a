// `trilith logout`, see acl.ts.
import { logout } from "./acl.ts";

export const command: typeof logout = logout;
