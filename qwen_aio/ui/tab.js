// The tab's own memory. The server's state of a tab dies with its process, so each act brings along what the tab
// shows, and a reload (Gradio reloads the page when a lost server is back) takes it up again. Kept per tab, on this
// side alone: sessionStorage ends with the tab.
window.qwenTab = (() => {
    const KEY = "qwen_aio.tab";
    const MAX_CHARS = 100000; // of the conversation or the draft, far below the limit of a request's body
    let isOpen = false; // before that the page is empty, which is nothing to remember

    function exchanges() {
        const all = [];
        for (const bubble of document.querySelectorAll("#conversation .bubble")) {
            if (bubble.parentElement.matches(".user")) all.push([bubble.textContent, ""]);
            else all.at(-1)[1] = bubble.textContent;
        }
        while (JSON.stringify(all).length > MAX_CHARS) all.shift();
        return all;
    }

    function state() {
        const typed = document.querySelector("#text textarea")?.value ?? "";
        const draft = typed.toWellFormed?.() ?? typed; // half of a surrogate pair is no JSON that can be read
        return JSON.stringify({
            language: document.documentElement.lang.slice(0, 2),
            mode: document.querySelector("#mode input:checked")?.value ?? "auto",
            is_enhanced: document.querySelector("#enhance input")?.checked ?? true,
            draft: draft.length > MAX_CHARS ? "" : draft,
            exchanges: exchanges(),
            is_running: document.querySelector("#stop") !== null,
        });
    }

    // Once the language is known: the page's language, and names for groups that Gradio leaves nameless.
    function opened(language) {
        isOpen = true;
        document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
        for (const group of document.querySelectorAll("fieldset")) {
            group.setAttribute("aria-label", group.querySelector("[data-testid=block-info]").textContent.trim());
        }
    }

    // A proxy answers for a server that is away. To Gradio only a failed call is a lost connection, which it looks for.
    const ask = window.fetch;
    window.fetch = async (...request) => {
        const reply = await ask(...request);
        if (reply.status === 502 || reply.status === 504) throw new TypeError("no server behind the proxy");
        return reply;
    };

    window.addEventListener("pagehide", () => {
        if (isOpen) sessionStorage.setItem(KEY, state());
    });
    return { state, opened, stored: () => sessionStorage.getItem(KEY) ?? "" };
})();
