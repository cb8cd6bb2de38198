// The tab's own memory, in sessionStorage. The server's state of a tab ends with its process, so each
// act sends what the tab shows, and a reload (Gradio's after a lost connection) restores it.
window.qwenTab = (() => {
    const KEY = "qwen_aio.tab";
    const MAX_CHARS = 100000; // of the conversation or the draft, far below the limit of a request's body
    const MAX_FILE_BYTES = 4000000; // as in sent_file.py
    const MAX_SENT_CHARS = 950000; // a request has at most 1,000,000 bytes
    let isOpen = false; // before that the page is empty

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

    // The chosen file, compressed: a request holds more of it so. "" without one.
    async function file() {
        const chosen = document.querySelector("#chosen-file").files[0];
        if (!chosen) return "";
        const sent = { name: chosen.name.toWellFormed?.() ?? chosen.name, size: chosen.size, content: "" };
        if (chosen.size <= MAX_FILE_BYTES) {
            const content = await compressed(chosen).catch(() => "?"); // it has changed on the disk: not base64, so refused
            if (content.length <= MAX_SENT_CHARS) sent.content = content;
        }
        return JSON.stringify(sent);
    }

    async function compressed(chosen) {
        const packed = await new Response(chosen.stream().pipeThrough(new CompressionStream("gzip"))).blob();
        return new Promise((read, fail) => {
            const reader = new FileReader();
            reader.onload = () => read(reader.result.slice(reader.result.indexOf(",") + 1));
            reader.onerror = fail;
            reader.readAsDataURL(packed);
        });
    }

    // Sets the language of the page, and names the groups that Gradio leaves without a name.
    function opened(language) {
        isOpen = true;
        document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
        for (const group of document.querySelectorAll("fieldset")) {
            group.setAttribute("aria-label", group.querySelector("[data-testid=block-info]").textContent.trim());
        }
    }

    // A proxy answers 502 or 504 for a lost server. Gradio reconnects only after a call that fails.
    const ask = window.fetch;
    window.fetch = async (...request) => {
        const reply = await ask(...request);
        if (reply.status === 502 || reply.status === 504) throw new TypeError("the proxy reaches no server");
        return reply;
    };

    window.addEventListener("pagehide", () => {
        if (isOpen) sessionStorage.setItem(KEY, state());
    });
    return { state, opened, file, stored: () => sessionStorage.getItem(KEY) ?? "" };
})();
